"""The programs as a user runs them: fine-tune, stop, resume, evaluate, predict; and what they refuse."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from PIL import Image

import tests.reference as reference
from experiments import finetune, predict
from experiments.evaluate import __main__ as evaluate
from tests.optional import torch
from vit_jax import load, load_card
from vit_jax.train import loop
from weights_convert.__main__ import main as convert_main

SMALL = ["--model", "Nano_6", "--batch-size", "8", "--epochs", "2", "--learning-rate", "1e-3", "--schedule", "constant"]
AUGMENT = ["--crop-scale", "0.5", "1", "--flip", "0.5"]


@pytest.fixture(scope="module")
def run(shapes, tmp_path_factory):
    """Return the folder of a finished run on the shapes."""
    out = tmp_path_factory.mktemp("runs") / "shapes"
    assert finetune.main(["--data", str(shapes), "--out", str(out), *SMALL, *AUGMENT]) == 0
    return out


def records(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def read_size(path):
    with Image.open(path) as image:
        return image.size


def test_a_run_folder_holds_everything(run, shapes):
    assert {p.name for p in run.iterdir()} == {
        "config.json",
        "metrics.jsonl",
        "curves.png",
        "best",
        "checkpoints",
        "split.json.gz",
    }
    epochs = [r for r in records(run) if "val_accuracy" in r]
    assert [(r["epoch"], r["step"]) for r in epochs] == [(1, 4), (2, 8)]
    assert all(round(10 * r["val_accuracy"], 4) == round(10 * r["val_accuracy"]) for r in epochs)  # of 10 images
    stored = json.loads((run / "config.json").read_text())
    assert stored["data"] == str(shapes)
    assert stored["recipe"]["augment"]["crop_scale"] == [0.5, 1]
    assert read_size(run / "curves.png") == (1200, 480)
    card = load_card(run / "best")
    assert card.class_names == ("bar", "disc")
    assert card.provenance["record"]["val_accuracy"] == max(r["val_accuracy"] for r in epochs)
    assert load(run / "best")(np.zeros((1, 24, 24, 3), np.float32)).shape == (1, 2)


def test_evaluate_agrees_with_the_run(run, shapes, tmp_path, capsys):
    best = max(r["val_accuracy"] for r in records(run) if "val_accuracy" in r)
    assert evaluate.main([str(run), "--batch-size", "4", "--out", str(tmp_path / "e")]) == 0
    assert f"accuracy {best:.4f}" in capsys.readouterr().out
    result = json.loads((tmp_path / "e" / "evaluation.json").read_text())
    assert result["accuracy"] == pytest.approx(best)
    assert np.sum(result["confusion"], axis=1).tolist() == [5, 5]
    assert min(read_size(tmp_path / "e" / "confusion.png")) > 300
    more = ["--format", "svg", "--out", str(tmp_path / "svg")]
    assert evaluate.main([str(run / "best"), "--data", str(shapes), "--split", "train", *more]) == 0
    assert "of 28 images" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "svg").iterdir()} == {"evaluation.json", "confusion.svg"}


def test_predict_keeps_names_and_reports_what_it_cannot_read(run, tmp_path, capsys):
    pictures = tmp_path / "some pictures"
    (pictures / "deep").mkdir(parents=True)
    names = ['a "quoted", name.png', "no_underscore_needed.jpg", "deep/ünïcode.png"]
    for name in names:
        Image.new("RGB", (50, 20), (9, 9, 9)).save(pictures / name)
    (pictures / "broken.jpg").write_bytes(b"\xff\xd8broken")
    (pictures / "notes.txt").write_text("no picture")
    out = tmp_path / "out.csv"
    assert predict.main([str(run), str(pictures), str(out), "--batch-size", "2"]) == 0
    captured = capsys.readouterr()
    assert "broken.jpg" in captured.err
    assert "3 predictions, 1 unreadable images skipped" in captured.out
    assert out.read_text().splitlines()[0] == "filename,label"
    with open(out, newline="") as file:
        rows = {row["filename"]: row["label"] for row in csv.DictReader(file)}
    assert set(rows) == set(names)
    assert set(rows.values()) <= {"bar", "disc"}


@pytest.mark.slow
def test_a_run_that_stops_itself_resumes_to_the_same_end(run, shapes, tmp_path, monkeypatch, capsys):
    """SIGTERM after the second of an epoch's four steps: the parameters and metrics of the uninterrupted run."""
    out, read_signal, steps = tmp_path / "stopped", loop._Loop._agreed_signal, []

    def stop_at_step_two(self):
        steps.append(self.step)
        if self.step == 2:
            signal.raise_signal(signal.SIGTERM)
        return read_signal(self)

    with monkeypatch.context() as patch:
        patch.setattr(loop._Loop, "_agreed_signal", stop_at_step_two)
        assert finetune.main(["--data", str(shapes), "--out", str(out), *SMALL, *AUGMENT]) == 128 + signal.SIGTERM
    assert steps == [1, 2]
    assert "SIGTERM: saved at step 2" in capsys.readouterr().out
    assert finetune.main(["--resume", str(out)]) == 0
    assert "resuming at step 2 of 8" in capsys.readouterr().out
    assert_same_end(out, run)


def assert_same_end(folder, other):
    """Check that the best model and the epochs of two runs are equal to the bit."""
    assert (folder / "best/model.safetensors").read_bytes() == (other / "best/model.safetensors").read_bytes()
    keys = ("epoch", "step", "train_loss", "val_loss", "val_accuracy")
    ours, theirs = ([[r[k] for k in keys] for r in records(f) if "val_loss" in r] for f in (folder, other))
    assert ours == theirs


def command(*arguments) -> list[str]:
    return [sys.executable, "-m", "experiments.finetune", *map(str, arguments)]


@pytest.mark.slow
def test_a_stopped_run_resumes_to_the_same_end(shapes, tmp_path):
    """Ctrl-C, resumed, SIGTERM, resumed: bitwise the parameters and metrics of the uninterrupted run."""
    options = ["--data", shapes, *SMALL, *AUGMENT, "--epochs", "12"]
    out, uninterrupted = tmp_path / "stopped", tmp_path / "whole"
    subprocess.run(command("--out", uninterrupted, *options), check=True, capture_output=True)
    for number, line_to_wait_for, start in [
        (signal.SIGINT, "epoch 2/", command("--out", out, *options)),
        (signal.SIGTERM, "epoch 5/", command("--resume", out)),
    ]:
        child = subprocess.Popen(start, stdout=subprocess.PIPE, text=True)
        for line in child.stdout:
            if line.startswith(line_to_wait_for):
                break
        child.send_signal(number)
        rest = child.communicate(timeout=120)[0]
        assert child.returncode == 128 + number
        assert f"{signal.Signals(number).name}: saved at step" in rest
        assert f"--resume {out}" in rest
    done = subprocess.run(command("--resume", out), capture_output=True, text=True, check=True)
    assert "resuming at step" in done.stdout
    assert_same_end(out, uninterrupted)


@pytest.mark.slow
def test_a_killed_run_resumes_from_its_last_epoch(shapes, tmp_path):
    out = tmp_path / "killed"
    child = subprocess.Popen(command("--data", shapes, "--out", out, *SMALL, "--epochs", "200"), stdout=subprocess.PIPE, text=True)  # fmt: skip
    for line in child.stdout:
        if line.startswith("epoch 3/"):
            break
    time.sleep(0.2)
    child.kill()
    child.communicate()
    resumed = subprocess.Popen(command("--resume", out), stdout=subprocess.PIPE, text=True)
    seen = []
    for line in resumed.stdout:
        seen.append(line)
        if line.startswith("epoch 6/"):
            break
    resumed.terminate()
    resumed.communicate(timeout=120)
    assert any("resuming at step" in line for line in seen)
    assert [r["epoch"] for r in records(out) if "val_loss" in r][:6] == [1, 2, 3, 4, 5, 6]


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_heads")
def test_fine_tuning_starts_from_a_torch_checkpoint(shapes, tmp_path, capsys):
    """Start from a foreign .pth with resized positions and a new head; then from a saved model and from a run."""
    torch.save(reference.tiny_torch(num_classes=7, dim=64, num_heads=1).float().state_dict(), tmp_path / "tiny.pth")
    base = ["--data", str(shapes), "--epochs", "1", "--batch-size", "8", "--no-augment", "--recipe", "pets"]
    out = tmp_path / "one"
    assert finetune.main([*base, "--weights", str(tmp_path / "tiny.pth"), "--image-size", "48", "--out", str(out)]) == 0
    assert "tiny.pth: layout lukemelas; " in capsys.readouterr().err
    model = load(out / "best")
    assert (model.config.width, model.config.image_size, model.config.num_classes) == (64, (48, 48), 2)
    assert finetune.main([*base, "--weights", str(out), "--image-size", "32", "--out", str(tmp_path / "two")]) == 0
    assert load(tmp_path / "two" / "best").config.image_size == (32, 32)
    assert "--weights" not in capsys.readouterr().err
    assert convert_main(["convert", str(tmp_path / "tiny.pth"), "--out", str(tmp_path / "model")]) == 0
    start = [*base, "--weights", str(tmp_path / "model"), "--image-size", "32", "--learning-rate", "0"]
    assert finetune.main([*start, "--out", str(tmp_path / "three")]) == 0
    frozen, original = load(tmp_path / "three" / "best"), load(tmp_path / "model", num_classes=2)
    jax.tree.map(np.testing.assert_array_equal, frozen, original)


@pytest.mark.slow
def test_corrupt_images_stop_a_run_or_are_skipped(shapes, tmp_path, capsys):
    broken = tmp_path / "broken"
    for split in ("train", "val"):
        (broken / split).mkdir(parents=True)
        for path in (shapes / split).iterdir():
            (broken / split / path.name).write_bytes(path.read_bytes())
    (broken / "train" / "disc_3.png").write_bytes(b"nonsense")
    (broken / "val" / "disc_2.png").write_bytes(b"nonsense")
    assert finetune.main(["--data", str(broken), "--out", str(tmp_path / "a"), *SMALL]) == 2
    assert "disc_3.png: not a readable image" in capsys.readouterr().err.splitlines()[-1]
    assert finetune.main(["--data", str(broken), "--out", str(tmp_path / "b"), *SMALL, "--skip-corrupt"]) == 0
    out, err = capsys.readouterr()
    assert sum(line.startswith("skipped: ") for line in err.splitlines()) == 2
    assert "1 unreadable training images skipped" in out
    assert "1 unreadable validation images skipped" in out


WRONG = {
    "no such folder, and no data set of that name": ["--data", "{tmp}/nowhere"],
    "no images in it": ["--data", "{tmp}/empty"],
    "only one class (cat)": ["--data", "{tmp}/one"],
    "class dog is in the validation images but not": ["--data", "{tmp}/unseen"],
    "size 50x50 is not divisible by the 6x6 patch; try 48x48": ["--data", "digits", "--image-size", "50"],
    "argument --flip: '-1' is not a number in [0, 1]": ["--flip=-1"],
    "unknown model 'Huge_14'": ["--data", "digits", "--model", "Huge_14"],
    "nothing.pth: no such model": ["--data", "digits", "--weights", "{tmp}/nothing.pth"],
    "cut.pth: truncated or damaged": ["--data", "digits", "--weights", "{tmp}/cut.pth"],
    "flipped.pth: damaged archive: Bad CRC-32": ["--data", "digits", "--weights", "{tmp}/flipped.pth"],
    "evil.pth: a dict without arrays; it has w; it names posix.system": [
        "--data",
        "digits",
        "--weights",
        "{tmp}/evil.pth",
    ],
    "is (8, 8), not (16, 16)": [
        "--model",
        "B_16",
        "--weights",
        "{tmp}/tiny.pth",
    ],
    "taken: exists already; give --resume": ["--data", "digits", "--out", "{tmp}/taken"],
    "no run to resume": ["--resume", "{tmp}/empty"],
    "--resume needs the run's folder": ["--resume"],
    "crop_scale is (minimum, maximum)": ["--data", "digits", "--crop-scale", "0.9", "0.1"],
    "unknown flag --epoch; did you mean --epochs": ["--epoch", "3"],
    "argument --epochs: '0' is not a whole number of at least 1": ["--epochs", "0"],
    "argument --image-size: 'big' is not a size": ["--image-size", "big"],
    "argument --dropout: '1.5' is not a number in [0, 1)": ["--dropout", "1.5"],
}


class System:
    def __reduce__(self):
        return os.system, ("touch executed",)


@pytest.fixture(scope="module")
def wrong_things(tmp_path_factory):
    tmp = tmp_path_factory.mktemp("wrong")
    image = Image.new("RGB", (8, 8))
    for name in ("one/cat_1.png", "one/cat_2.png", "unseen/train/cat_1.png", "unseen/train/cow_1.png", "unseen/val/dog_1.png"):  # fmt: skip
        (tmp / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(tmp / name)
    (tmp / "empty").mkdir()
    (tmp / "taken").mkdir()
    (tmp / "taken" / "notes.txt").write_text("mine")
    torch.save(reference.tiny_torch(dim=64, num_heads=1).float().state_dict(), tmp / "tiny.pth")
    data = (tmp / "tiny.pth").read_bytes()
    (tmp / "cut.pth").write_bytes(data[: len(data) // 2])
    middle = len(data) // 2
    (tmp / "flipped.pth").write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    torch.save({"w": System()}, tmp / "evil.pth")
    return tmp


@pytest.mark.usefixtures("tiny_heads")
@pytest.mark.parametrize("message", WRONG)
def test_wrong_input_is_one_line_and_writes_nothing(message, wrong_things, capsys, monkeypatch):
    monkeypatch.chdir(wrong_things)
    arguments = [a.format(tmp=wrong_things) for a in WRONG[message]]
    before = sorted(wrong_things.rglob("*"))
    if not {"--out", "--resume"} & set(arguments):
        arguments += ["--out", str(wrong_things / "new")]
    try:
        code = finetune.main(arguments)
    except SystemExit as stop:  # argparse leaves by itself
        code = stop.code
    assert code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert message in lines[0]
    assert sorted(wrong_things.rglob("*")) == before


def test_other_programs_refuse_in_one_line(run, wrong_things, tmp_path, capsys):
    cases = [
        (predict.main, [str(run), str(wrong_things / "empty"), "o.csv"], "no images in it"),
        (predict.main, [str(wrong_things / "empty"), str(wrong_things / "one"), "o.csv"], "a folder without weights"),
        (predict.main, [str(wrong_things / "none"), str(wrong_things / "one"), "o.csv"], "no such model"),
        (predict.main, [str(wrong_things / "cut.pth"), str(wrong_things / "one"), "o.csv"], "truncated or damaged"),
        (predict.main, [str(run), str(wrong_things / "one"), "no/such/o.csv"], "its folder does not exist"),
        (evaluate.main, [str(run), "--data", str(wrong_things / "one")], "does not know the class cat"),
        (evaluate.main, [str(run / "best")], "give --data"),
        (finetune.main, ["--resume", str(run), "--epochs", "9"], "leave out --epochs"),
        (finetune.main, ["--resume", str(run), "--data", "digits"], "leave out --data"),
        (finetune.main, ["--weights", str(run), "--model", "Mini_16"], "not Mini_16: its patch_size is (6, 6)"),
        (finetune.main, ["--weights", str(run), "--data", "oxford_iiit_pe"], "no data set of that name"),
        (finetune.main, ["--out", str(run), "--data", "digits"], "exists already"),
    ]
    for main, arguments, message in cases:
        assert main(arguments) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1, lines
        assert message in lines[0]


def test_a_finished_run_resumed_changes_nothing(run, capsys):
    before = {p: p.read_bytes() for p in run.glob("best/*")}
    metrics = (run / "metrics.jsonl").read_text()
    assert finetune.main(["--out", str(run), "--resume"]) == 0
    assert "best validation accuracy" in capsys.readouterr().out
    assert before == {p: p.read_bytes() for p in run.glob("best/*")}
    assert (run / "metrics.jsonl").read_text() == metrics


@pytest.mark.slow
def test_a_non_finite_loss_stops_the_run(shapes, tmp_path, capsys):
    command = ["--data", str(shapes), "--out", str(tmp_path / "r"), *SMALL, "--learning-rate", "1e30"]
    assert finetune.main(command) == 2
    assert "non-finite loss at step" in capsys.readouterr().err


FULL_FROM_THE_START = "import resource, sys; from experiments import finetune; {limit}; sys.exit(finetune.main())"
FULL_AT_A_CHECKPOINT = """
import resource, sys
from experiments import finetune
from vit_jax.train.checkpoints import Checkpoints

save = Checkpoints.save
def save_on_a_full_disk(*arguments, **options):
    {limit}
    return save(*arguments, **options)

Checkpoints.save = save_on_a_full_disk
sys.exit(finetune.main())
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "best"),
    [(FULL_FROM_THE_START, False), (FULL_AT_A_CHECKPOINT, True)],
    ids=["from the start", "at a checkpoint"],
)
def test_a_full_disk_ends_in_one_line(program, best, shapes, tmp_path):
    """Files of at most 100 KiB, less than the weights in best/ and less than a checkpoint: nothing is half-written."""
    limited = program.format(limit="resource.setrlimit(resource.RLIMIT_FSIZE, (100 * 1024,) * 2)")
    full = [sys.executable, "-c", limited, "--data", str(shapes), "--out", str(tmp_path / "full"), *SMALL]
    # The compilation cache's files would meet the limit too, and stay cut off.
    no_cache = os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "0"}
    done = subprocess.run(full, capture_output=True, text=True, check=False, env=no_cache)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [done.stderr.strip()]
    assert "free some space" in done.stderr
    assert (tmp_path / "full" / "best").exists() == best
    assert not list((tmp_path / "full").glob(".*"))
    assert not list((tmp_path / "full" / "checkpoints").glob("*tmp*"))


def test_a_checkpoint_that_does_not_fit_the_disk_is_not_started(tmp_path, monkeypatch):
    import shutil

    from vit_jax import InputError
    from vit_jax.train.checkpoints import Checkpoints

    checkpoints = Checkpoints(tmp_path / "c")
    usage = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(InputError, match="no space left for a checkpoint: it needs 4 MB and 0 MB are free"):
        checkpoints.save({"w": jax.numpy.zeros((1000, 1000))}, {}, step=1, score=0.5)
    assert not list((tmp_path / "c").iterdir())
    checkpoints.close()


@pytest.mark.slow
def test_digits_reach_97_percent_with_no_arguments(tmp_path):
    start = time.monotonic()
    done = subprocess.run(command(), cwd=tmp_path, capture_output=True, text=True, check=True,
                          env=os.environ | {"PYTHONPATH": os.getcwd()})  # fmt: skip
    seconds = time.monotonic() - start
    best = float(done.stdout.split("best validation accuracy ")[1].split()[0])
    print(f"accuracy {best}, {seconds:.0f} s")
    assert best >= 0.97
    assert "--data FOLDER" in done.stdout
    assert (tmp_path / "runs" / "digits" / "best").is_dir()
