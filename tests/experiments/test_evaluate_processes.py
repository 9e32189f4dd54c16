"""evaluate divided over several processes: each image once, and the numbers of one process."""

import json
import signal
import time
from dataclasses import replace

import pytest

from experiments.common import team as teams
from experiments.common.team import Team
from experiments.evaluate import __main__ as evaluate
from tests.create import create
from tests.experiments.test_probe import CONFIG
from tests.experiments.test_processes import drop_gloo_lines, start_pair, wait_for_exit
from vit_jax import VisionTransformer, inference, save


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "classifier"
    save(create(VisionTransformer, replace(CONFIG, num_classes=2)), folder, class_names=("bar", "disc"))
    return folder


@pytest.fixture
def computed(monkeypatch):
    """The number of images of every call that computes outputs."""
    counts, original = [], inference.iterate_outputs

    def record(model, images, *rest, **options):
        counts.append(len(images))
        return original(model, images, *rest, **options)

    monkeypatch.setattr(inference, "iterate_outputs", record)
    return counts


def command_of(classifier, shapes, out, *more):
    return [str(classifier), "--data", str(shapes), "--batch-size", "3", "--out", str(out), *more]


def read(out):
    assert {path.suffix for path in out.iterdir()} == {".json", ".png"}  # no parts are left
    return json.loads((out / "evaluation.json").read_text())


def run_as(team, command, monkeypatch):
    monkeypatch.setattr(teams, "join_team", lambda *_: team)
    return evaluate.main(command)


@pytest.mark.parametrize("probe", [(), ("--probe", "knn", "--neighbors", "3")])
def test_three_processes_give_the_result_of_one(classifier, shapes, tmp_path, monkeypatch, capsys, computed, probe):
    alone = command_of(classifier, shapes, tmp_path / "alone", *probe)
    assert evaluate.main(alone) == 0
    expected = capsys.readouterr().out.replace("alone", "three")
    assert evaluate.main([*alone[:5], *probe]) == 0  # in memory
    assert capsys.readouterr().out == expected.partition("written to")[0]
    (total, again), computed[:] = list(computed), []
    assert total == again
    command = command_of(classifier, shapes, tmp_path / "three", *probe)
    for index in (2, 1, 0):
        assert run_as(Team(index, 3), command, monkeypatch) == 0
    assert sum(computed) == total
    assert min(computed) >= 3
    assert read(tmp_path / "three") == read(tmp_path / "alone")
    assert expected in capsys.readouterr().out  # the others print nothing after they have joined


def test_only_the_missing_parts_are_computed_again(classifier, shapes, tmp_path, monkeypatch, capsys, computed):
    command, original = command_of(classifier, shapes, tmp_path / "out"), evaluate.compute_parts

    def interrupt(*arguments, compute, **options):
        def compute_some(items):
            for number, chunk in enumerate(compute(items)):
                if number == 3:
                    raise KeyboardInterrupt
                yield chunk

        return original(*arguments, compute=compute_some, **options)

    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "compute_parts", interrupt)
        assert evaluate.main(command) == 130
    assert evaluate.main(command) == 0
    assert computed == [10, 4]  # parts of a batch of 3; the third one is written when the fourth begins
    assert "2 of 4 parts are done already" in capsys.readouterr().err
    monkeypatch.undo()
    assert evaluate.main(command_of(classifier, shapes, tmp_path / "alone")) == 0
    assert read(tmp_path / "out") == read(tmp_path / "alone")


def test_processes_of_other_models_are_not_merged(classifier, shapes, tmp_path, monkeypatch, capsys):
    other = replace(CONFIG, num_classes=2, depth=2)
    save(create(VisionTransformer, other), tmp_path / "other", class_names=("bar", "disc"))
    assert run_as(Team(1, 2), command_of(tmp_path / "other", shapes, tmp_path / "out"), monkeypatch) == 0
    assert run_as(Team(0, 2), command_of(classifier, shapes, tmp_path / "out"), monkeypatch) == 2
    assert "missing; do all processes have the same model and images?" in capsys.readouterr().err


def test_a_failed_evaluation_leaves_no_folder(classifier, shapes, pictures, tmp_path, capsys):
    assert evaluate.main(command_of(classifier, pictures, tmp_path / "out")) == 2
    assert "does not know the class" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_processes_need_out(classifier, shapes, capsys):
    flags = ["--coordinator", "127.0.0.1:1", "--processes", "2", "--process", "1"]
    assert evaluate.main([str(classifier), "--data", str(shapes), *flags]) == 2
    assert capsys.readouterr().err == "error: several processes need --out, a folder that all of them see\n"


@pytest.mark.slow
def test_two_real_processes_that_are_killed(classifier, shapes, tmp_path):
    """Started again, they give the result of one process."""
    assert evaluate.main(command_of(classifier, shapes, tmp_path / "alone")) == 0
    command = command_of(classifier, shapes, tmp_path / "two")
    children = start_pair("evaluate", *command)
    while not list((tmp_path / "two" / ".parts").glob("process-0001.json")):
        assert children[1].poll() in (None, 0)
        time.sleep(0.02)
    for child in children:
        child.send_signal(signal.SIGKILL)
    wait_for_exit(children)
    (output, rest), codes = zip(*wait_for_exit(start_pair("evaluate", *command)), strict=True)
    assert codes == (0, 0), (output, rest)
    assert drop_gloo_lines(rest[0]) == []
    assert "accuracy" in output[0]
    assert read(tmp_path / "two") == read(tmp_path / "alone")
