"""Images that are explained already, and images divided over several processes."""

import pytest

from experiments.common.team import Team
from experiments.explain import __main__ as explain
from experiments.explain import results
from experiments.explain.explainer import Explainer
from tests.experiments.explain.inputs import copy_pictures
from tests.experiments.test_processes import drop_gloo_lines, start_pair, wait_for_exit


def test_finished_images_are_not_explained_again(saved, pictures, tmp_path, monkeypatch, capsys):
    """Neither by the next call; a changed image, a missing figure and other options are."""
    copy_pictures(pictures / "images" / "p0.png", tmp_path / "in", ["a.png", "b.png", "c.png"])
    command = [
        saved,
        str(tmp_path / "in"),
        "--out",
        str(tmp_path / "out"),
        "--method",
        "attention",
        "--batch-size",
        "1",
    ]
    calls, original = [], Explainer.explain

    def interrupt(self, pixels):
        calls.append(len(pixels))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(self, pixels)

    monkeypatch.setattr(Explainer, "explain", interrupt)
    assert explain.main(command) == 130
    assert explain.main(command) == 0
    assert len(calls) == 4
    assert "2 of 3 are done already" in capsys.readouterr().err
    copy_pictures(pictures / "images" / "p1.png", tmp_path / "in", ["a.png"])
    (tmp_path / "out" / "b.png").unlink()
    assert explain.main(command) == 0
    assert len(calls) == 6
    assert explain.main(command) == 0
    assert len(calls) == 6
    assert "a .png and a .npz for each of 3 images" in capsys.readouterr().out
    assert explain.main([*command, "--layer", "0"]) == 0
    assert len(calls) == 9


def test_processes_explain_each_image_once(saved, pictures, tmp_path, monkeypatch, capsys):
    """Of four processes, that is two images for one of them."""
    command = [saved, str(pictures / "images"), "--out", str(tmp_path / "out"), "--method", "attention", "--position"]
    written, original = [], results.write_results

    def record(explainer, image, *rest):
        written.append(image.result)
        return original(explainer, image, *rest)

    monkeypatch.setattr(results, "write_results", record)
    for team in (Team(index, 4) for index in (3, 1, 2, 0)):
        monkeypatch.setattr(explain, "join_team", lambda *_, team=team: team)
        assert explain.main(command) == 0
    assert len(written) == len(set(written)) == 5
    assert "a .png and a .npz for each of 5 images" in capsys.readouterr().out.splitlines()[-1]
    stems = {"p0", "p1", "p2", "p3", "more/p4"}
    expected = {f"{stem}{end}" for stem in stems for end in (".png", ".npz")} | {"position_similarity.png"}
    assert {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.*")} == expected


@pytest.mark.slow
def test_two_processes(saved, pictures, tmp_path):
    children = start_pair("explain", saved, pictures / "images", "--out", tmp_path / "out", "--method", "attention")
    (first, second), codes = zip(*wait_for_exit(children), strict=True)
    assert codes == (0, 0), (first, second)
    assert "a .png and a .npz for each of 5 images" in first[0]
    assert drop_gloo_lines(second[0]) == []
    assert len(list((tmp_path / "out").rglob("*.npz"))) == 5
