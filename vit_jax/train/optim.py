"""Learning-rate schedules and AdamW, with a learning rate per group of parameters."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from vit_jax.checkpoint import parameter_name
from vit_jax.train.lora import LoRAModel
from vit_jax.train.recipe import Recipe, TrainRecipe

FROZEN = "frozen"  # the group of parameters that are not trained
CLIP_EPS = 1e-6  # torch.nn.utils.clip_grad_norm_ divides by the norm plus this
STEP_FACTOR = 0.1  # of --schedule step
HEADS = ("head.", "distillation_head.")


def clip_by_norm(max_norm: float) -> optax.GradientTransformation:
    """Scale gradients to a global norm of at most max_norm, as torch does: by max_norm / (norm + 1e-6)."""

    def update(gradients: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        scale = jnp.minimum(1.0, max_norm / (optax.tree.norm(gradients) + CLIP_EPS))
        return jax.tree.map(lambda g: g * scale.astype(g.dtype), gradients), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def make_schedule(recipe: TrainRecipe, steps_per_epoch: int, *, peak: float | None = None) -> optax.Schedule:
    """Return the learning rate by step: linear warm-up from 0, then the recipe's schedule.

    peak: the highest rate, by default the recipe's learning_rate.
    """
    rate = recipe.learning_rate if peak is None else peak
    total = recipe.epochs * steps_per_epoch
    warmup = min(round(recipe.warmup_epochs * steps_per_epoch), total)
    after = {
        "constant": lambda: optax.constant_schedule(rate),
        "cosine": lambda: optax.cosine_decay_schedule(rate, max(1, total - warmup)),
        "step": lambda: optax.exponential_decay(
            rate, recipe.step_epochs * steps_per_epoch, STEP_FACTOR, staircase=True
        ),
    }[recipe.schedule]()
    if warmup == 0:
        return after
    return optax.join_schedules([optax.linear_schedule(0.0, rate, warmup), after], [warmup])


def make_optimizer(recipe: Recipe, schedule: optax.Schedule, model: Any) -> optax.GradientTransformation:
    """Return AdamW with the recipe's numbers, clipping and learning rates per layer.

    model: what is trained, or its shapes.
    """
    if recipe.train == "all" and recipe.layer_decay == 1:
        plain = optax.adamw(schedule, **adamw_numbers(recipe))
        return optax.chain(clip_by_norm(recipe.clip_norm), plain) if recipe.clip_norm else plain
    factors = parameter_groups(recipe, model)
    rates = {group: scale_schedule(schedule, float(group)) for group in set(jax.tree.leaves(factors)) - {FROZEN}}
    return adamw_by_group(factors, rates, clip_norm=recipe.clip_norm, **adamw_numbers(recipe))


def adamw_numbers(recipe: TrainRecipe) -> dict[str, float]:
    """Return every number of optax.adamw but the learning rate: its default weight decay is not torch's."""
    return dict(b1=recipe.beta1, b2=recipe.beta2, eps=recipe.eps, weight_decay=recipe.weight_decay)


def scale_schedule(schedule: optax.Schedule, factor: float) -> optax.Schedule:
    """Return the schedule times a factor."""
    return lambda count: schedule(count) * factor


def adamw_by_group(
    groups: Any, rates: Mapping[str, optax.Schedule], *, clip_norm: float = 0.0, **numbers: float
) -> optax.GradientTransformation:
    """Return AdamW whose learning rate depends on the group of a parameter.

    groups: the group of each parameter, as a tree of names. Parameters of the group FROZEN do not change, do not count
    for the norm that is clipped, and have no optimizer state.
    """
    is_frozen = jax.tree.map(lambda group: group == FROZEN, groups)
    is_trained = jax.tree.map(lambda group: group != FROZEN, groups)
    clip = [clip_by_norm(clip_norm)] if clip_norm else []
    # The masks are functions, since optax calls a mask that is callable, as a model is.
    adamw = optax.masked(optax.adamw(1.0, **numbers), lambda params: is_trained)
    return optax.chain(
        optax.masked(optax.set_to_zero(), lambda params: is_frozen),
        *clip,
        optax.chain(adamw, scale_by_group(groups, rates)),
    )


def scale_by_group(groups: Any, rates: Mapping[str, optax.Schedule]) -> optax.GradientTransformation:
    """Multiply each update by the rate of its group; those of the group FROZEN stay."""

    def init(params: Any) -> optax.ScaleByScheduleState:
        return optax.ScaleByScheduleState(count=jnp.zeros([], jnp.int32))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        now = {group: rate(state.count) for group, rate in rates.items()}
        scaled = jax.tree.map(
            lambda group, u: u if group == FROZEN else u * jnp.asarray(now[group], u.dtype), groups, updates
        )
        return scaled, optax.ScaleByScheduleState(count=optax.safe_increment(state.count))

    return optax.GradientTransformation(init, update)


def parameter_groups(recipe: Recipe, model: Any) -> Any:
    """Return, as a tree like the model, the learning-rate factor of each parameter as text, or FROZEN.

    The factor is layer_decay ** (depth + 1 - layer), where the embedding is layer 0, the blocks are layers 1 to depth
    and everything after them is layer depth + 1 (the convention of BEiT and MAE, https://arxiv.org/abs/2106.08254).
    """
    base = model.base if isinstance(model, LoRAModel) else model
    depth = len(base.blocks)

    def group(path: tuple[Any, ...], _: Any) -> str:
        name = parameter_name(path)
        if isinstance(model, LoRAModel) and name.startswith("adapters."):
            return repr(1.0)
        name = name.removeprefix("base.")
        if recipe.train != "all":
            return repr(1.0) if name.startswith(HEADS) else FROZEN
        if name.startswith("blocks."):
            layer = int(name.split(".")[1]) + 1
        else:
            above = (*HEADS, "norm.", "pool.", "representation.")
            layer = depth + 1 if name.startswith(above) else 0
        return repr(recipe.layer_decay ** (depth + 1 - layer))

    return jax.tree_util.tree_map_with_path(group, model)
