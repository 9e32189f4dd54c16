"""The learning rate at each step."""

import optax

from experiments.recipe import Recipe


def learning_rates(recipe: Recipe, steps_per_epoch: int) -> optax.Schedule:
    """Linear warm-up from 0, then constant, or cosine to 0 at the last step."""
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
