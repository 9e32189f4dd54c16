"""What a training run carries from step to step."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class Totals(NamedTuple):
    """Sums over images: of their losses, of the correct answers, and their number. float32 scalars."""

    loss: jax.Array
    correct: jax.Array
    images: jax.Array

    @classmethod
    def zeros(cls) -> "Totals":
        """Nothing seen yet."""
        return cls(*(jnp.zeros(()) for _ in range(3)))


class TrainState(NamedTuple):
    """A pytree that a checkpoint holds whole.

    model:      the parameters, or whatever else the task learns.
    opt_state:  the optimiser's.
    step:       int32, the steps taken.
    totals:     the sums of the epoch so far.
    failed:     int32, the first step whose loss was no finite number, 0 while there is none.
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
        """What is validated and kept: the average where there is one."""
        return self.model if self.average is None else self.average


def init_state(model: Any, tx: optax.GradientTransformation, *, averaged: bool = False) -> TrainState:
    """The state before the first step."""
    average = jax.tree.map(jnp.copy, model) if averaged else None
    nothing = jnp.zeros((), jnp.int32)
    return TrainState(model, tx.init(model), nothing, Totals.zeros(), jnp.copy(nothing), average)
