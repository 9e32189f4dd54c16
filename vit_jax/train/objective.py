"""What a classifier is trained for, chosen once: one label for each image, or a set of labels."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Float32

from vit_jax.config import MULTI_LABEL, SINGLE_LABEL, ViTConfig
from vit_jax.data.dataset import Split
from vit_jax.errors import InputError
from vit_jax.prediction import is_multi_label
from vit_jax.train.classify import cross_entropy, sigmoid_cross_entropy
from vit_jax.train.measure import ACCURACY, MEAN_AVERAGE_PRECISION
from vit_jax.train.state import Totals, validation_means
from vit_jax.train.step import TaskLoss


class EvaluatedBatch(NamedTuple):
    """A batch after the validation step: sums, logits [B, C], labels and weights of its rows; arrays on the devices."""

    totals: Totals
    logits: jax.Array
    labels: jax.Array
    weights: jax.Array


class Objective(NamedTuple):
    """The loss and the measure of a classifier.

    loss:      (logits, labels, weights, shares, label_smoothing) -> TaskLoss, for training.
    eval_loss: the same for validation, where all classes count equally.
    measures:  batches of the validation split -> {"val_loss": ..., "val_accuracy": ..., ...}.
    best_by:   the name of the measure whose highest value is the best epoch.
    """

    loss: Callable[..., TaskLoss]
    eval_loss: Callable[..., TaskLoss]
    measures: Callable[[Iterable[EvaluatedBatch]], dict[str, float]]
    best_by: str


def check_task(config: ViTConfig, split: Split) -> None:
    """Raise InputError if a model's task, by which programs read its outputs, is not that of the labels."""
    if is_multi_label(config) != split.is_multi_label:
        needed = MULTI_LABEL if split.is_multi_label else SINGLE_LABEL
        raise InputError(f"the model's task is {config.task}, and the images' labels need {needed}: set ViTConfig.task")


def choose_objective(split: Split, num_classes: int, balance: str) -> Objective:
    """Return the objective for training on a split. balance: "weights" gives rare classes more weight in the loss."""
    loss, eval_loss, measures, best_by = (
        (sigmoid_cross_entropy, sigmoid_cross_entropy, _set_measures, MEAN_AVERAGE_PRECISION.name)
        if split.is_multi_label
        else (cross_entropy, cross_entropy, _label_measures, ACCURACY.name)
    )
    if balance == "weights":
        class_weights = positive_weights(split) if split.is_multi_label else balanced_weights(split, num_classes)
        return Objective(partial(loss, class_weights=tuple(class_weights.tolist())), eval_loss, measures, best_by)
    return Objective(loss, eval_loss, measures, best_by)


def balanced_weights(split: Split, num_classes: int) -> Float32[np.ndarray, " classes"]:
    """Return the weight of each class, N / (C n) for n of N images, as scikit-learn's "balanced"; 0 for none."""
    counts = np.bincount(split.labels, minlength=num_classes)
    return (len(split) / (num_classes * np.maximum(counts, 1)) * (counts > 0)).astype(np.float32)


def positive_weights(split: Split) -> Float32[np.ndarray, " classes"]:
    """Return the weight of each class where an image has it, (N - n) / n for n of N images, as torch's pos_weight."""
    counts = split.labels.sum(axis=0)
    return ((len(split) - counts) / np.maximum(counts, 1)).astype(np.float32)


def mean_average_precision(labels: Bool[np.ndarray, "n classes"], logits: Float[np.ndarray, "n classes"]) -> float:
    """Return the mean over the classes of the average precision. A class without images does not count.

    Raises InputError if no image has a label.
    """
    values = average_precisions(labels, logits)
    if np.isnan(values).all():
        raise InputError("no image has a label, so the mean average precision is not defined")
    return float(np.nanmean(values))


def average_precisions(labels: Bool[np.ndarray, "n classes"], logits: Float[np.ndarray, "n classes"]) -> np.ndarray:
    """Return the average precision of each class, NaN for a class without images."""
    from sklearn.metrics import average_precision_score  # seconds to import

    present = labels.any(axis=0)
    values = np.full(labels.shape[1], np.nan)
    for label in np.flatnonzero(present):
        values[label] = average_precision_score(labels[:, label], logits[:, label])
    return values


def _label_measures(batches: Iterable[EvaluatedBatch]) -> dict[str, float]:
    return validation_means(batch.totals for batch in batches)


def _set_measures(batches: Iterable[EvaluatedBatch]) -> dict[str, float]:
    totals, logits, labels = [], [], []
    for batch in batches:
        totals.append(batch.totals)
        is_image = _gather(batch.weights) > 0
        logits.append(_gather(batch.logits)[is_image])
        labels.append(_gather(batch.labels)[is_image])
    average = mean_average_precision(np.concatenate(labels), np.concatenate(logits))
    return validation_means(totals) | {MEAN_AVERAGE_PRECISION.name: average}


def _gather(array: Any) -> np.ndarray:
    """Return an array that is sharded over all processes."""
    if jax.process_count() == 1:
        return np.asarray(array)
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(jnp.asarray(array), tiled=True))
