"""What a training run carries from step to step."""

import functools
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class Totals(NamedTuple):
    """Sums over images: the losses, the correct predictions, and the number of images. float32 scalars."""

    loss: jax.Array
    correct: jax.Array
    images: jax.Array

    @classmethod
    def zeros(cls) -> "Totals":
        """Return the totals of no images."""
        return cls(*(jnp.zeros(()) for _ in range(3)))


class TrainState(NamedTuple):
    """The state of a run, which a checkpoint holds.

    model:      the parameters: a model, or whatever else the task trains.
    opt_state:  the state of the optimizer.
    step:       int32, the number of steps done.
    totals:     the sums of the epoch so far.
    failed:     int32, the first step with a non-finite loss, or 0.
    average:    the moving average of the parameters (EMA), or None.
    """

    model: Any
    opt_state: Any
    step: jax.Array
    totals: Totals
    failed: jax.Array
    average: Any = None

    @property
    def eval_params(self) -> Any:
        """The parameters to validate and save: the average if there is one."""
        return self.model if self.average is None else self.average


def init_state(model: Any, tx: optax.GradientTransformation, *, averaged: bool = False) -> TrainState:
    """Return the state before the first step."""
    average = jax.tree.map(jnp.copy, model) if averaged else None
    zero = jnp.zeros((), jnp.int32)
    return TrainState(model, tx.init(model), zero, Totals.zeros(), jnp.copy(zero), average)


def validation_means(batches: Iterable[Totals]) -> dict[str, float]:
    """Return the mean loss and accuracy over the totals of all validation batches."""
    total = jax.device_get(functools.reduce(lambda a, b: jax.tree.map(jnp.add, a, b), batches))
    return {"val_loss": float(total.loss / total.images), "val_accuracy": float(total.correct / total.images)}
