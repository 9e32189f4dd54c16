"""Folders that an earlier version wrote (saved/*.tar.gz): models load, runs and sweeps resume to the same end.

Each archive has expected.json: the logits of a model, or the epochs of the same run when it was not stopped. The
archives were written on another day and maybe on another processor, hence the bounds.
"""

import json
import subprocess
import sys
import tarfile
from pathlib import Path

import jax
import numpy as np
import pytest

import caption
import tests.reference as reference
import vit_jax
from caption.tokenizer import load_tokenizer
from tests.golden import behaviour_captioners, behaviour_models

SAVED = Path(__file__).with_name("saved")
# Losses are sums in float32, whose order depends on the processor. One of 359 digits may change sides.
LOSS, ACCURACY = 1e-3, 0.006


@pytest.fixture
def unpack(tmp_path):
    """Return a function that unpacks an archive and returns its folder and its expected results."""

    def extract(name):
        with tarfile.open(SAVED / f"{name}.tar.gz") as archive:
            archive.extractall(tmp_path, filter="data")
        return tmp_path / name, json.loads((tmp_path / name / "expected.json").read_text())

    return extract


def run(module, *arguments):
    """Run a command to its end; return its output. The XLA flags of the tests apply, as when the archives were written."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def assert_epochs(folder, expected):
    """Check that a run's metrics.jsonl holds the expected epochs, each once."""
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    epochs = [record for record in records if "val_loss" in record]
    assert [record["epoch"] for record in epochs] == [record["epoch"] for record in expected]
    for ours, theirs in zip(epochs, expected, strict=True):
        for name, value in theirs.items():
            exact = isinstance(value, int)
            bound = {"rel": 0, "abs": 0} if exact else {"rel": LOSS, "abs": ACCURACY if "accuracy" in name else 1e-6}
            assert ours[name] == pytest.approx(value, **bound), (ours["epoch"], name)


def test_a_saved_classifier_loads(unpack):
    folder, expected = unpack("classifier")
    model, card = vit_jax.load(folder / "model"), vit_jax.load_card(folder / "model")
    assert card.config == vit_jax.CONFIGS["Pico_8"]
    assert card.class_names == tuple(f"digit {number}" for number in range(10))
    assert card.provenance == {"source": "the golden rule"}
    logits = model(behaviour_models.images(5, 2, 24, 24, 3).astype(np.float32))
    assert reference.relative_error(logits, expected["logits"]) < 1e-5  # two layers of float32


@pytest.mark.slow
def test_a_saved_captioner_loads(unpack):
    folder, expected = unpack("captioner")
    model = caption.load(folder / "model")
    assert model.config == behaviour_captioners.CAPTION
    assert load_tokenizer(folder / "model").vocabulary == behaviour_captioners.TOKENIZER.vocabulary
    images, mask, tokens = behaviour_captioners.caption_inputs(vit=False)
    np.testing.assert_array_equal(tokens, expected["tokens"])
    output = jax.jit(caption.forward_with_attention)(
        model, images[:2].astype(np.float32), mask[:2], tokens, tokens != 0
    )
    assert reference.relative_error(output.logits, expected["logits"]) < 1e-5  # 5 + 2 + 2 layers of float32


@pytest.mark.slow
def test_a_stopped_run_resumes(unpack):
    folder, expected = unpack("digits_run")
    assert "resuming at step" in run("experiments.finetune", "--resume", folder / "run", "--no-compile-cache")
    assert_epochs(folder / "run", expected["epochs"])
    assert vit_jax.load_card(folder / "run" / "best").class_names == tuple("0123456789")
    best = max(record["val_accuracy"] for record in expected["epochs"])
    run("experiments.evaluate", folder / "run", "--out", folder / "evaluation")
    result = json.loads((folder / "evaluation" / "evaluation.json").read_text())
    assert result["accuracy"] == pytest.approx(best, abs=ACCURACY)


@pytest.mark.slow
def test_a_stopped_run_keeps_its_settings(unpack):
    folder, _ = unpack("digits_run")
    command = [sys.executable, "-m", "experiments.finetune", "--resume", str(folder / "run"), "--mixup", "0.5"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--mixup" in done.stderr


@pytest.mark.slow
def test_a_stopped_caption_run_resumes(unpack):
    folder, expected = unpack("caption_run")
    for config in (folder / "run" / "config.json", folder / "run" / "best" / "config.json"):
        config.write_text(config.read_text().replace("@FOLDER@", str(folder)))  # paths are recorded as absolute
    assert "resuming at step" in run("experiments.train_caption", "--resume", folder / "run", "--no-compile-cache")
    assert_epochs(folder / "run", expected["epochs"])
    best = caption.load_card(folder / "run" / "best").provenance["record"]
    assert best["epoch"] == min(expected["epochs"], key=lambda record: record["val_loss"])["epoch"]
    run("experiments.caption", folder / "pictures", "--weights", folder / "run", "--out", folder / "captioned")
    assert len(json.loads((folder / "captioned" / "captions.json").read_text())) == 10


@pytest.mark.slow
def test_a_stopped_sweep_resumes(unpack):
    folder, expected = unpack("sweep")
    printed = run("experiments.sweep", "--resume", folder / "sweep")
    assert "2 of 2 runs done" in printed
    for model, epochs in expected.items():
        assert_epochs(folder / "sweep" / model, epochs)
