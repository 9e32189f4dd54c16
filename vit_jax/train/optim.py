"""The learning rate at each step, and the optimiser."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from vit_jax.checkpoint import parameter_name
from vit_jax.train.lora import LoRAModel
from vit_jax.train.recipe import Recipe

FROZEN = "frozen"
CLIP_EPS = 1e-6  # torch.nn.utils.clip_grad_norm_ divides by the norm plus this
HEADS = ("head.", "distillation_head.")


def clip_by_norm(max_norm: float) -> optax.GradientTransformation:
    """Gradients scaled to a global norm of at most max_norm, as torch does it: by max_norm / (norm + 1e-6)."""

    def update(gradients: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        scale = jnp.minimum(1.0, max_norm / (optax.tree.norm(gradients) + CLIP_EPS))
        return jax.tree.map(lambda g: g * scale.astype(g.dtype), gradients), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def make_schedule(recipe: Recipe, steps_per_epoch: int) -> optax.Schedule:
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


def make_optimizer(recipe: Recipe, schedule: optax.Schedule, model: Any) -> optax.GradientTransformation:
    """AdamW with every number named (optax's default weight decay is not torch's), and what the recipe has beside it.

    Frozen parameters take no part in the norm that is clipped, and cost the optimiser no memory. model: what learns, or
    its shapes.
    """
    numbers: dict[str, Any] = dict(b1=recipe.beta1, b2=recipe.beta2, eps=recipe.eps, weight_decay=recipe.weight_decay)
    clip = [clip_by_norm(recipe.clip_norm)] if recipe.clip_norm else []
    if recipe.train == "all" and recipe.layer_decay == 1:
        plain = optax.adamw(schedule, **numbers)
        return optax.chain(*clip, plain) if clip else plain
    groups = parameter_groups(recipe, model)
    frozen = jax.tree.map(lambda group: group == FROZEN, groups)
    rules: dict[Any, Any] = {FROZEN: optax.set_to_zero()}
    for factor in set(jax.tree.leaves(groups)) - {FROZEN}:
        rules[factor] = optax.adamw(_scaled(schedule, float(factor)), **numbers)
    return optax.chain(  # the trees are models, which optax would take for functions and call
        optax.masked(optax.set_to_zero(), lambda params: frozen),
        *clip,
        optax.multi_transform(rules, lambda params: groups),
    )


def _scaled(schedule: optax.Schedule, factor: float) -> optax.Schedule:
    return lambda count: schedule(count) * factor


def parameter_groups(recipe: Recipe, model: Any) -> Any:
    """In the model's own tree: the factor of each parameter's learning rate, as text, or "frozen".

    layer_decay ** (depth + 1 - layer), with the embedding as layer 0, the blocks from 1 to depth, and all after them
    depth + 1 (BEiT's and MAE's convention, https://arxiv.org/abs/2106.08254).
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
