"""Fixtures of the sweep and report tests: a small sweep, run once."""

import numpy as np
import pytest
from PIL import Image

from experiments.sweep import __main__ as sweep

AWKWARD = ["a<b>&c", r"d$\e$|ü猫"]  # class names that must be escaped in HTML, Markdown and figures


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """Write two classes with awkward names, distinguished by the bright side; a fifth of the images are mislabelled."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 6)):
        for kind, name in enumerate(AWKWARD):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 120, (30, 40, 3)).astype(np.uint8)
                pixels[:, :20] += np.uint8(120 * (kind if i % 5 else 1 - kind))
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return root


def flags(pictures, *more):
    small = ["--batch-size", "8", "--epochs", "2", "--recipe", "scratch", "--warmup-epochs", "0"]
    models = ["--models", "Pico_6", "Pico_8", "--seeds", "1"]
    return ["--data", str(pictures), *models, *more, "--", *small]


@pytest.fixture(scope="session")
def swept(pictures, tmp_path_factory):
    """Return the folder of a finished sweep of two models."""
    out = tmp_path_factory.mktemp("sweeps") / "sweep"
    assert sweep.main(flags(pictures, "--set", "learning_rate=1e-3", "--out", str(out))) == 0
    return out
