"""What a training run carries from step to step, and the optimiser."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from experiments.recipe import Recipe


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
    """A pytree: the model, the optimiser's state, the number of steps taken, and the epoch's sums."""

    model: Any
    opt_state: Any
    step: jax.Array
    totals: Totals


def learning_rates(recipe: Recipe, steps_per_epoch: int) -> optax.Schedule:
    """The learning rate at each step: linear warm-up from 0, then constant, or cosine to 0 at the last step."""
    total = recipe.epochs * steps_per_epoch
    warmup = min(round(recipe.warmup_epochs * steps_per_epoch), total)
    if recipe.schedule == "cosine":
        after = optax.cosine_decay_schedule(recipe.learning_rate, max(1, total - warmup))
    else:
        after = optax.constant_schedule(recipe.learning_rate)
    if warmup == 0:
        return after
    return optax.join_schedules([optax.linear_schedule(0.0, recipe.learning_rate, warmup), after], [warmup])


def optimizer(recipe: Recipe, schedule: optax.Schedule) -> optax.GradientTransformation:
    """AdamW with every number named: optax's default weight decay is not torch's."""
    return optax.adamw(schedule, b1=recipe.beta1, b2=recipe.beta2, eps=recipe.eps, weight_decay=recipe.weight_decay)
