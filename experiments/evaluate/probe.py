"""python -m experiments.evaluate MODEL --data DATA --probe knn|linear: how well a backbone tells classes apart."""

from typing import NamedTuple

import numpy as np

from vit_jax import InputError
from vit_jax.data.dataset import Dataset
from vit_jax.probe import accuracy_interval, fit_knn, fit_linear

PROBES = ("knn", "linear")


class ProbeResult(NamedTuple):
    """The predicted labels [n] of the validation images, and lines that describe how they came about."""

    predicted: np.ndarray
    lines: list[str]


def check_probe_data(data: Dataset) -> None:
    """Raise InputError for training images of a single class, and for images with several labels."""
    if data.train.is_multi_label:
        raise InputError(f"{data.name}: its images have several labels; a probe needs one for each image")
    if len(np.unique(data.train.labels)) < 2:
        raise InputError(f"{data.name}: its training images have one class; a probe needs two")


def evaluate_probe(name: str, features: np.ndarray, data: Dataset, *, neighbors: int) -> ProbeResult:
    """Fit a probe of PROBES to the training images, and predict the validation images.

    features: [n, D] of the training images, followed by those of the validation images.
    """
    train, val = np.split(features, [len(data.train)])
    probe = (
        fit_knn(train, data.train.labels, neighbors=neighbors)
        if name == "knn"
        else fit_linear(train, data.train.labels)
    )
    predicted = np.asarray(probe.predict(val))
    correct, count = int((predicted == data.val.labels).sum()), len(predicted)
    low, high = accuracy_interval(correct, count)
    return ProbeResult(
        predicted,
        [
            f"features: {len(train):,} training and {count:,} validation images, {train.shape[1]:,} values each",
            f"{probe.description}: accuracy {correct / count:.4f} ({correct} of {count} images), "
            f"95 % interval [{low:.4f}, {high:.4f}]",
        ],
    )
