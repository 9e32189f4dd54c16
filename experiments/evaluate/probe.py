"""python -m experiments.evaluate MODEL --data DATA --probe knn|linear: how well a backbone tells classes apart."""

from typing import NamedTuple

import numpy as np

from vit_jax import InputError, VisionTransformer
from vit_jax.data.dataset import Dataset, Split
from vit_jax.probe import accuracy_interval, fit_knn, fit_linear

PROBES = ("knn", "linear")


class ProbeResult(NamedTuple):
    """The predicted labels [n] of the validation images, and lines that describe how they came about."""

    predicted: np.ndarray
    lines: list[str]


def evaluate_probe(
    name: str, model: VisionTransformer, data: Dataset, batch_size: int, *, neighbors: int
) -> ProbeResult:
    """Fit a probe of PROBES to the features of the training images, and predict the validation images.

    Raises InputError naming an image that cannot be read, for training images of a single class, and for images with
    several labels.
    """
    if data.train.is_multi_label:
        raise InputError(f"{data.name}: its images have several labels; a probe needs one for each image")
    if len(np.unique(data.train.labels)) < 2:
        raise InputError(f"{data.name}: its training images have one class; a probe needs two")
    train, val = (_compute_features(model, split, batch_size) for split in (data.train, data.val))
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


def _compute_features(model: VisionTransformer, split: Split, batch_size: int) -> np.ndarray:
    from vit_jax.data.loader import CachedImages
    from vit_jax.inference import compute_outputs

    images = CachedImages(split, model.config.image_preprocess, budget=0)
    return compute_outputs(model, images, batch_size, on_corrupt="raise").features
