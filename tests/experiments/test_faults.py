"""Runs that are killed at random moments, or lose a picture: they end bitwise as an uninterrupted run."""

import csv
import random
import subprocess
import sys
import threading
import time

import pytest
from PIL import Image

from caption.data.scenes import make_scene
from vit_jax.train.logging import read_metrics

FINETUNE = ["finetune", "--model", "Nano_6", "--batch-size", "8", "--learning-rate", "1e-3", "--schedule", "constant",
            "--flip", "0.5", "--dropout", "0.1", "--epochs", "500", "--save-minutes", "0.001"]  # fmt: skip
CAPTION = ["train_caption", "--recipe", "scenes", "--vocabulary", "build", "--batch-size", "4", "--epochs", "60",
           "--dropout", "0.1", "--save-minutes", "0.001"]  # fmt: skip


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Return a folder of synthetic scenes: class folders, and a table of captions."""
    root = tmp_path_factory.mktemp("scenes")
    rows = []
    for index in range(24):
        scene = make_scene(0, index)
        name = f"{'ab'[index % 2]}/{index}.png"
        (root / name).parent.mkdir(exist_ok=True)
        Image.fromarray(scene.image).resize((40, 40)).save(root / name)
        rows.append([name, scene.caption])
    with open(root / "captions.csv", "w", newline="") as file:
        csv.writer(file).writerows([["file", "caption"], *rows])
    return root


def launch(program, *arguments):
    command = [sys.executable, "-m", f"experiments.{program}", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def run_uninterrupted(out, command):
    """Run a command to its end; return the seconds until the end of the first epoch."""
    start, first_epoch, output = time.monotonic(), None, ""
    child = launch(*command, "--out", out)
    ending = threading.Timer(900, child.kill)
    ending.start()
    for line in child.stdout:
        output += line
        if first_epoch is None and line.startswith("epoch"):
            first_epoch = time.monotonic() - start
    child.communicate()  # closes the pipe
    ending.cancel()
    assert child.returncode == 0, output
    return first_epoch


def assert_same_end(ours, theirs):
    assert (ours / "best/model.safetensors").read_bytes() == (theirs / "best/model.safetensors").read_bytes()
    rows = [
        [{k: v for k, v in r.items() if k != "seconds"} for r in read_metrics(f / "metrics.jsonl") if "val_loss" in r]
        for f in (ours, theirs)
    ]
    assert len(rows[0]) > 1
    assert rows[0] == rows[1]
    assert not list(ours.glob("*tmp*")) + list(ours.glob(".best*")) + list((ours / "checkpoints").glob("*tmp*"))


@pytest.mark.slow
@pytest.mark.parametrize(("command", "rounds"), [(FINETUNE, 50), (CAPTION, 6)], ids=["finetune", "train_caption"])
def test_kills_at_random_moments(command, rounds, scenes, tmp_path):
    """Kill after half a second to twice the time of the first epoch, which is measured since machines differ."""
    command = [*command, "--data", scenes]
    uninterrupted, killed = tmp_path / "whole", tmp_path / "killed"
    seconds = 2 * run_uninterrupted(uninterrupted, command)
    rng = random.Random(0)
    kills = steps = 0
    while kills < rounds:
        started = (killed / "config.json").is_file()
        child = launch(command[0], "--resume", killed) if started else launch(*command, "--out", killed)
        try:
            output = child.communicate(timeout=rng.uniform(0.5, seconds))[0]
            assert child.returncode == 0, output
            break  # it finished
        except subprocess.TimeoutExpired:
            child.kill()
            output = child.communicate()[0]
            kills += 1
            steps += "epoch" in output
    print(f"{kills} kills within {seconds:.1f} s, {steps} of them after an epoch")
    assert kills >= rounds // 2
    assert steps >= kills // 5
    child = launch(command[0], "--resume", killed)
    output = child.communicate(timeout=900)[0]
    assert child.returncode == 0, output
    assert_same_end(killed, uninterrupted)


@pytest.mark.slow
def test_a_picture_lost_during_a_run_stops_it_and_it_resumes_when_the_picture_is_back(scenes, tmp_path):
    command = ["finetune", *FINETUNE[1:-4], "--epochs", "12", "--cache-gb", "0", "--data", scenes]
    uninterrupted, broken, lost = tmp_path / "whole", tmp_path / "broken", scenes / "a" / "4.png"
    run_uninterrupted(uninterrupted, command)
    child = launch(*command, "--out", broken)
    for line in child.stdout:
        if line.startswith("epoch 3/"):
            break
    content = lost.read_bytes()
    lost.unlink()
    output = child.communicate(timeout=120)[0]
    lost.write_bytes(content)
    assert child.returncode == 2
    assert output.splitlines()[-1].startswith("error: ")
    assert "4.png" in output.splitlines()[-1]
    again = launch("finetune", "--resume", broken)
    assert again.communicate(timeout=300)[0]
    assert again.returncode == 0
    assert_same_end(broken, uninterrupted)
