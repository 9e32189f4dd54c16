"""Runs whose images or classes changed: resuming and evaluating them is refused; a new run keeps the stored split."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from experiments import finetune
from experiments.evaluate import __main__ as evaluate
from vit_jax.data.stored_split import read_split
from vit_jax.train.logging import read_metrics
from vit_jax.train.run_folder import SPLIT

SMALL = ["--model", "Pico_6", "--batch-size", "8", "--epochs", "1", "--learning-rate", "1e-3", "--recipe", "digits",
         "--warmup-epochs", "0", "--no-augment"]  # fmt: skip


def paint(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8), value, np.uint8)).save(path)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """Return a folder with data/ of two classes, and a finished run on it."""
    root = tmp_path_factory.mktemp("original")
    for i in range(10):
        paint(root / "data" / "cat" / f"{i}.png", 20 * i)
        paint(root / "data" / "dog" / f"{i}.png", 20 * i + 5)
    assert finetune.main(["--data", str(root / "data"), "--out", str(root / "run"), *SMALL]) == 0
    return root


@pytest.fixture
def copy(original, tmp_path):
    """Return a copy of the data and of the run on it."""
    shutil.copytree(original, tmp_path / "c")
    config = tmp_path / "c" / "run" / "config.json"
    stored = json.loads(config.read_text()) | {"data": str(tmp_path / "c" / "data")}
    config.write_text(json.dumps(stored))
    return tmp_path / "c"


def add(root):
    for i in range(10, 14):
        paint(root / "data" / "cat" / f"{i}.png", i)


def rename(root):
    (root / "data" / "cat").rename(root / "data" / "zebra")


CHANGES = {
    add: "4 added (first: cat/10.png)",
    lambda root: (root / "data" / "dog" / "3.png").unlink(): "1 removed (first: dog/3.png)",
    rename: "class cat renamed to zebra",
    lambda root: paint(root / "data" / "emu" / "1.png") or paint(root / "data" / "emu" / "2.png"): "1 class new (emu)",
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_run_is_neither_resumed_nor_evaluated(change, copy, capsys):
    change(copy)
    before = {path: path.read_bytes() for path in (copy / "run").rglob("*") if path.is_file()}
    for main, arguments, remedy in (
        (finetune.main, ["--resume", str(copy / "run")], "put it back as it was, or start a new run with --weights"),
        (evaluate.main, [str(copy / "run")], "put it back as it was, or name images with --data"),
    ):
        assert main(arguments) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: {copy / 'run'}: {copy / 'data'} has changed since the run began: ")
        assert CHANGES[change] in line
        assert remedy in line
    assert {path: path.read_bytes() for path in (copy / "run").rglob("*") if path.is_file()} == before


def test_a_new_run_from_a_run_keeps_its_split(copy, capsys):
    old = read_split(copy / "run" / SPLIT)
    add(copy)
    for weights in ("run", "run/best"):
        out = copy / f"new_{weights.replace('/', '_')}"
        flags = ["--data", str(copy / "data"), "--weights", str(copy / weights), "--out", str(out), *SMALL[2:]]
        assert finetune.main(flags) == 0
        assert f"split: that of {copy / 'run'} for 20 images; 4 are new" in capsys.readouterr().out
        new = read_split(out / SPLIT)
        assert set(old.train.names) < set(new.train.names)
        assert set(old.val.names) <= set(new.val.names)
        assert len(new.train.names) + len(new.val.names) == 24
    assert evaluate.main([str(out)]) == 0  # the new run is evaluated on its own split
    assert f"of {len(new.val.names)} images" in capsys.readouterr().out


def test_a_run_without_a_stored_split_goes_on(copy, capsys):
    (copy / "run" / SPLIT).unlink()
    assert evaluate.main([str(copy / "run")]) == 0
    assert (
        "a run of an older version, which stores no split (split.json.gz): it is drawn again" in capsys.readouterr().out
    )
    assert finetune.main(["--resume", str(copy / "run")]) == 0


def test_skipped_images_are_skipped_again_without_a_new_check(copy, capsys):
    (copy / "data" / "cat" / "3.png").write_bytes(b"nonsense")
    flags = ["--data", str(copy / "data"), "--out", str(copy / "skipping"), "--skip-corrupt", *SMALL]
    assert finetune.main(flags) == 0
    assert read_split(copy / "skipping" / SPLIT).skipped.names == ["cat/3.png"]
    capsys.readouterr()
    assert finetune.main(["--resume", str(copy / "skipping")]) == 0
    captured = capsys.readouterr()
    assert "images skipped" not in captured.out
    assert "skipped: " not in captured.err
    stored = read_split(copy / "skipping" / SPLIT)
    counts = len(stored.train.names), len(stored.val.names)
    assert sum(counts) == 19
    assert f"{counts[0]} training and {counts[1]} validation images" in captured.out


def test_weights_on_other_classes_start_a_new_head(copy, capsys):
    """As many classes with other names: at a learning rate of 0 the loss stays that of a head of zeros, ln 2."""
    rename(copy)
    out = copy / "other"
    flags = ["--data", str(copy / "data"), "--weights", str(copy / "run"), "--out", str(out), *SMALL[2:]]
    assert finetune.main([*flags, "--learning-rate", "0"]) == 0
    assert "head: new, because the classes of the weights have other names (zebra is" in capsys.readouterr().out
    (record,) = [r for r in read_metrics(out / "metrics.jsonl") if "val_loss" in r]
    assert record["val_loss"] == pytest.approx(np.log(2), abs=1e-6)
