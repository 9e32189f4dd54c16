"""Pictures divided over several processes."""

import pytest

from caption.captioner import Captioner
from experiments.caption import __main__ as program
from experiments.caption.records import merge_parts
from experiments.common.team import Team
from tests.experiments.caption.inputs import records_in
from tests.experiments.test_processes import drop_gloo_lines, start_pair, wait_for_exit


def run_as(team, monkeypatch, command):
    """Run the program as one process of a team, after join_team."""
    monkeypatch.setattr(program, "join_team", lambda *_: team)
    return program.main(command)


def test_processes_caption_each_picture_once(saved, pictures, tmp_path, monkeypatch, capsys):
    """One is stopped after two of its pictures; all together they then do only the rest, and the first one merges."""
    alone, out = tmp_path / "alone", tmp_path / "out"
    options = ["--weights", saved, "--batch-size", "1"]
    assert program.main([str(pictures), "--out", str(alone), *options]) == 0
    command = [str(pictures), "--out", str(out), *options]
    calls, original = [], Captioner.__call__

    def interrupt(self, images, batch_size):
        if len(calls) == 1:
            raise KeyboardInterrupt
        calls.append(len(images))
        return original(self, images, batch_size)

    with monkeypatch.context() as patch:
        patch.setattr(Captioner, "__call__", interrupt)
        assert run_as(Team(1, 2), monkeypatch, command) == 130
    assert not (out / "captions.json").exists()
    merge_parts(out)  # by the first process of the next start
    assert len(records_in(out)) == 1
    assert run_as(Team(1, 2), monkeypatch, command) == 0
    assert "1 of 2 are done already" in capsys.readouterr().err
    assert run_as(Team(0, 2), monkeypatch, command) == 0
    assert "5 captions in captions.json" in capsys.readouterr().out
    expected, merged = ({r["file"]: r["caption"] for r in records_in(folder)} for folder in (alone, out))
    assert merged == expected
    assert len(records_in(out)) == 5
    assert {path.name for path in out.rglob("*")} == {path.name for path in alone.rglob("*")}


def test_a_process_without_pictures_or_with_an_unreadable_one_ends(saved, pictures, tmp_path, monkeypatch, capsys):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    command = [str(pictures / "p0.png"), str(bad), "--out", str(tmp_path / "out"), "--weights", saved, "--no-figures"]
    assert run_as(Team(2, 3), monkeypatch, command) == 0
    assert run_as(Team(1, 3), monkeypatch, command) == 2
    capsys.readouterr()
    assert run_as(Team(0, 3), monkeypatch, command) == 2
    assert "process 1 failed: " in (error := capsys.readouterr().err)
    assert "bad.png: not a readable image" in error
    assert run_as(Team(1, 3), monkeypatch, [*command, "--skip-corrupt"]) == 0
    assert run_as(Team(0, 3), monkeypatch, [*command, "--skip-corrupt"]) == 0
    assert [record["file"] for record in records_in(tmp_path / "out")] == [str(pictures / "p0.png")]


@pytest.mark.slow
def test_two_processes(saved, pictures, tmp_path):
    out = tmp_path / "out"
    children = start_pair("caption", pictures, "--out", out, "--weights", saved)
    (first, second), codes = zip(*wait_for_exit(children), strict=True)
    assert codes == (0, 0), (first, second)
    assert "5 captions in captions.json" in first[0]
    assert drop_gloo_lines(second[0]) == []
    assert len({record["file"] for record in records_in(out)}) == len(records_in(out)) == 5
    assert {p.name for p in out.rglob("*.*")} == {
        *(f"p{i}.png" for i in range(5)),
        "captions.json",
        "captions.csv",
        "settings.json",
    }
