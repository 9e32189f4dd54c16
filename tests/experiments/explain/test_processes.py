"""Images that are explained already, and images divided over several processes."""

import json

import pytest

from experiments.common import team as teams
from experiments.common.team import Team
from experiments.explain import __main__ as explain
from experiments.explain import evaluation, results
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
        monkeypatch.setattr(teams, "join_team", lambda *_, team=team: team)
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


def score_command(saved, pictures, out):
    images = [saved, str(pictures / "images"), "--evaluate", "--masks", str(pictures / "masks"), "--out", str(out)]
    return [*images, "--method", "attention,rise", "--rise-masks", "4", "--batch-size", "2", "--baseline", "blur"]


def read_scores(out):
    """Return the stored scores without the times."""
    stored = json.loads((out / "faithfulness.json").read_text())
    for scores in stored["scores"].values():
        assert len(scores.pop("seconds")) == 1
    return stored


def test_processes_score_each_image_once_with_the_numbers_of_one(saved, pictures, tmp_path, monkeypatch, capsys):
    """Two processes; the second one is killed after its only batch, and its work is not done again."""
    assert explain.main(score_command(saved, pictures, tmp_path / "alone")) == 0
    scored, original = [], evaluation.score_batches

    def record(methods, model, batches, baselines, *, total):
        for items, scores in original(methods, model, batches, baselines, total=total):
            scored.extend(items.tolist())
            yield items, scores

    monkeypatch.setattr(evaluation, "score_batches", record)
    command = score_command(saved, pictures, tmp_path / "two")
    for team in (Team(1, 2), Team(1, 2), Team(0, 2)):
        monkeypatch.setattr(teams, "join_team", lambda *_, team=team: team)
        assert explain.main(command) == 0
    assert sorted(scored) == list(range(5))
    assert "1 of 1 parts are done already" in capsys.readouterr().err
    assert read_scores(tmp_path / "two") == read_scores(tmp_path / "alone")
    assert {path.name for path in (tmp_path / "two").iterdir()} == {"faithfulness.json", "faithfulness.md"}


@pytest.mark.slow
def test_two_processes_score(saved, pictures, tmp_path):
    assert explain.main(score_command(saved, pictures, tmp_path / "alone")) == 0
    children = start_pair("explain", *score_command(saved, pictures, tmp_path / "two"))
    (first, second), codes = zip(*wait_for_exit(children), strict=True)
    assert codes == (0, 0), (first, second)
    assert drop_gloo_lines(second[0]) == []
    assert read_scores(tmp_path / "two") == read_scores(tmp_path / "alone")


def test_several_processes_need_a_folder(saved, pictures, capsys):
    command = [saved, str(pictures / "images"), "--evaluate", "--masks", str(pictures / "masks")]
    assert explain.main([*command, "--coordinator", "127.0.0.1:1", "--processes", "2", "--process", "0"]) == 2
    assert capsys.readouterr().err == "error: several processes need --out, a folder that all of them see\n"
