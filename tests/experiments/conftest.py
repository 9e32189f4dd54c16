"""Fixtures of the program tests: small data sets, and a small sweep that is run once."""

import numpy as np
import pytest
from PIL import Image

from experiments.sweep import __main__ as sweep

AWKWARD = ["a<b>&c", r"d$\e$|ü猫"]  # class names that must be escaped in HTML, Markdown and figures


@pytest.fixture(scope="session")
def shapes(tmp_path_factory):
    """Write pictures of discs and bars to train/ and val/."""
    root = tmp_path_factory.mktemp("shapes")
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:30, :40]
    for split, count in (("train", 14), ("val", 5)):
        for kind in ("bar", "disc"):
            (root / split).mkdir(exist_ok=True)
            for i in range(count):
                cx, cy = rng.uniform(12, 28), rng.uniform(10, 20)
                inside = np.hypot(x - cx, y - cy) < 8 if kind == "disc" else abs(x - cx) < 3
                pixels = np.where(inside[..., None], rng.integers(150, 255, 3), rng.integers(0, 90, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(root / split / f"{kind}_{i}.png")
    return root


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
