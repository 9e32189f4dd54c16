"""The sweep command: planning, running, stopping, killing and resuming, and what it refuses."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from experiments.report import __main__ as report
from experiments.sweep import __main__ as sweep
from experiments.sweep.folder import read_plan
from experiments.sweep.plan import make_plan, weights_flags
from experiments.sweep.study import published_accuracy
from tests.experiments.conftest import flags
from vit_jax import InputError
from vit_jax.train.logging import read_metrics
from vit_jax.train.recipe import RECIPES
from vit_jax.train.run_folder import RunConfig


def test_every_run_is_an_ordinary_run_of_finetune(swept, pictures, capsys):
    names = ["Pico_6_learning_rate-1e-3", "Pico_8_learning_rate-1e-3"]
    plan = json.loads((swept / "sweep.json").read_text())
    assert [run["name"] for run in plan["runs"]] == names
    for name in names:
        assert (swept / name / "best" / "model.safetensors").is_file()
        assert "done in" in (swept / f"{name}.log").read_text()
        config = json.loads((swept / name / "config.json").read_text())
        assert (config["recipe"]["learning_rate"], config["recipe"]["seed"]) == (1e-3, 1)
    before = {path: path.read_bytes() for path in swept.rglob("*") if path.is_file() and path.name != "ended.json"}
    assert sweep.main(["--resume", str(swept)]) == 0
    output = capsys.readouterr().out
    assert "2 of 2 runs done" in output
    assert re.search(r"Pico_6_learning_rate-1e-3  done +\d\.\d{4} +-", output)
    assert before == {p: p.read_bytes() for p in swept.rglob("*") if p.is_file() and p.name != "ended.json"}


def wait_for_exit(child):
    output = child.communicate(timeout=240)[0]
    return child.returncode, output


@pytest.mark.slow
def test_a_stopped_and_killed_sweep_resumes(pictures, tmp_path):
    """Ctrl-C lets runs save and SIGKILL ends them with the sweep; the weights equal those of an uninterrupted sweep."""

    def launch(*arguments):
        command = [sys.executable, "-m", "experiments.sweep", *arguments]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    arguments = [*flags(pictures), "--epochs", "12"]
    plain, interrupted = tmp_path / "plain", tmp_path / "interrupted"
    split = arguments.index("--")
    assert wait_for_exit(launch(*arguments[:split], "--out", str(plain), *arguments[split:]))[0] == 0

    child = launch(*arguments[:split], "--out", str(interrupted), *arguments[split:])
    wait_for(interrupted / "Pico_6" / "metrics.jsonl", 2)
    child.send_signal(signal.SIGINT)
    code, output = wait_for_exit(child)
    assert code == 130
    assert f"python -m experiments.sweep --resume {interrupted}" in output
    assert "saved at step" in (interrupted / "Pico_6.log").read_text()

    child = launch("--resume", str(interrupted))
    wait_for(interrupted / "Pico_8" / "metrics.jsonl", 3)
    child.kill()
    child.communicate()
    code, output = wait_for_exit(launch("--resume", str(interrupted)))
    assert code == 0, output
    assert "2 of 2 runs done" in output
    for name in ("Pico_6", "Pico_8"):
        weights = Path(name) / "best" / "model.safetensors"
        assert (plain / weights).read_bytes() == (interrupted / weights).read_bytes()


def wait_for(metrics, epochs):
    start = time.monotonic()
    while sum("val_accuracy" in r for r in read_metrics(metrics)) < epochs:
        assert time.monotonic() - start < 200
        time.sleep(0.05)


@pytest.mark.slow
def test_a_failed_run_is_reported_and_the_others_continue(pictures, tmp_path, capsys):
    out = tmp_path / "sweep"
    arguments = ["--data", str(pictures), "--models", "Pico_8", "--set", "image_size=25,24", "--out", str(out)]
    arguments += ["--gpus", "2"]  # both at once, on a CPU too
    assert sweep.main([*arguments, "--", "--batch-size", "8", "--epochs", "1", "--recipe", "scratch"]) == 1
    output = capsys.readouterr().out
    assert re.search(r"Pico_8_image_size-25 +failed +- +- +0:\d\d  .*25x25 is not divisible", output)
    assert re.search(r"Pico_8_image_size-24 +done", output)
    assert "1 of 2 runs done" in output
    assert "Pico_8_image_size-25: " in output.split("1 of 2 runs done")[1]
    assert report.main([str(out), "--out", str(tmp_path / "report")]) == 0
    assert "no complete epoch yet: Pico_8_image_size-25" in (tmp_path / "report" / "report.html").read_text()


def test_the_study_is_the_default(tmp_path, monkeypatch):
    plan = make_plan(data=None, models=None, seeds=[0], settings=[], flags=[])
    assert [run.model for run in plan.runs] == [
        "B_16_imagenet1k", "L_32_imagenet1k", "B_32_imagenet1k", "B_16", "L_32", "B_32",
    ]  # fmt: skip
    assert plan.runs[0].flags == ("--data", "oxford_iiit_pet", "--model", "B_16_imagenet1k", "--weights",
                                  "B_16_imagenet1k", "--image-size", "384", "--seed", "0")  # fmt: skip
    quick = make_plan(data=None, models=None, seeds=[0], settings=[], flags=[], quick=True)
    assert len(quick.runs) == 6
    assert "--weights" not in quick.runs[0].flags
    (tmp_path / "B_32.pth").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    options = dict(settings=["epochs=1,2"], flags=["--no-augment"], weights_dir=".")
    own = make_plan(data="x", models=["B_32"], seeds=[0, 1], **options)
    assert [run.name for run in own.runs] == [f"B_32_epochs-{e}_seed-{s}" for s in (0, 1) for e in (1, 2)]
    weights = ("--weights", str(tmp_path / "B_32.pth"))
    assert own.runs[-1].flags[4:] == (*weights, "--seed", "1", "--epochs=2", "--no-augment")
    assert [published_accuracy(run.config()) for run in plan.runs] == [0.9433, 0.9383, 0.9249, 0.9155, 0.9062, 0.8823]


def test_a_sweep_from_scratch_says_so_and_a_model_without_release_is_refused():
    assert weights_flags("B_16", None, scratch=True) == ["--from-scratch"]
    assert weights_flags("Pico_8", None, scratch=True) == weights_flags("Pico_8", None, scratch=False) == []
    plan = make_plan(data="x", models=["B_16"], seeds=[0], settings=[], flags=[], scratch=True)
    assert (plan.runs[0].config().weights, plan.runs[0].config().from_scratch) == (None, True)
    with pytest.raises(
        InputError, match="L_16 was never released, L_16_imagenet1k was; give --weights-dir or --scratch"
    ):
        weights_flags("L_16", None, scratch=False)


def test_only_runs_of_the_study_have_a_published_accuracy():
    recipe = replace(RECIPES["pets"], model="L_32", epochs=3, seed=5)
    study = RunConfig(recipe, "oxford_iiit_pet", weights="/weights/L_32.pth")
    assert published_accuracy(study) == 0.9062
    assert published_accuracy(replace(study, recipe=replace(recipe, model=None))) == 0.9062
    for other in (
        replace(study, weights=None),
        replace(study, weights="/runs/L_32_again"),
        replace(study, data="/my/oxford_iiit_pet"),
        replace(study, recipe=replace(recipe, learning_rate=2e-5)),
        replace(study, recipe=replace(recipe, image_size=(224, 224))),
        replace(study, recipe=replace(recipe, augment=RECIPES["scratch"].augment)),
        replace(study, recipe=replace(recipe, model="L_16"), weights="L_16"),
    ):
        assert published_accuracy(other) is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--models", "Huge"], "unknown model 'Huge'"),
        (["--set", "lr"], "--set lr: not a setting"),
        (["--models", "Pico_8", "Pico_8"], "two runs would be called Pico_8"),
        (["--weights-dir", "."], "no weights of B_16_imagenet1k"),
        (["--out", "{tmp}"], "exists already and is no sweep"),
        (["--resume", "{tmp}"], "no sweep (no sweep.json)"),
        (["--models", "Pico_4", "--out", "{swept}"], "holds another sweep"),
        (["--resume", "{swept}", "--models", "Pico_4", "--", "--epochs", "3"], "leave out --models, --"),
        (["--data", "nowhere/here"], "nowhere/here: no such folder, and no data set of that name"),
        (["--", "--epoch", "3"], "unknown flag --epoch"),
        (["--set", "epochs=0"], "argument --epochs: '0' is not a whole number of at least 1"),
        (["--set", "patience=-1"], "argument --patience: '-1' is not a whole number of at least 0"),
        (["--", "--out=x"], "-- --out=x: the sweep sets that for its runs; use its own flag --out"),
        (["--", "--config", "x.toml"], "-- --config: the runs of a sweep read no file; give their flags here"),
        (["--set", "seed=1,2"], "use its own flag --seeds"),
    ],
)
def test_wrong_sweeps_are_one_line(arguments, message, swept, tmp_path, capsys):
    (tmp_path / "something").write_text("")
    command = [a.replace("{tmp}", str(tmp_path)).replace("{swept}", str(swept)) for a in arguments]
    more = [] if {"--out", "--resume"} & set(command) else ["--out", str(tmp_path / "new")]
    before = sorted(swept.rglob("*"))
    try:
        code = sweep.main([*more, *command])
    except SystemExit as stop:  # argparse exits by itself
        code = stop.code
    assert code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.strip().count("\n") == 0
    assert not (tmp_path / "new").exists()
    assert sorted(swept.rglob("*")) == before


def test_plans_are_read_back(tmp_path):
    (tmp_path / "sweep.json").write_text('{"format": "vit_jax_sweep/1"}')
    with pytest.raises(InputError, match=r"sweep.json: not a sweep's plan: it has no 'runs'"):
        read_plan(tmp_path)
    (tmp_path / "sweep.json").write_text("{")
    with pytest.raises(InputError, match=r"sweep.json: not JSON"):
        read_plan(tmp_path)


@pytest.mark.slow
def test_the_quick_study_and_its_report(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}  # the tests' are slow
    command = [sys.executable, "-m", "experiments.sweep", "--quick", "--out", str(tmp_path / "quick")]
    completed = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert "6 of 6 runs done" in completed.stdout
    assert f"written to {tmp_path / 'quick' / 'report'}/: report.html" in completed.stdout
    rows = [line.split() for line in completed.stdout.splitlines()]
    best = {row[0]: float(row[2]) for row in rows if row[1:2] == ["done"]}
    assert len(best) == 6
    assert max(best.values()) > 0.9
    # Rounding on another processor may change the winner.
    winners = [name for name in best if best[name] == max(best.values())]
    report = (tmp_path / "quick" / "report" / "report.html").read_text()
    assert any(f"The best, {name}," in report for name in winners)
