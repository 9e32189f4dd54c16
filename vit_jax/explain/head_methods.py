"""What each attention head does, as tables over layers and heads, by name and with one signature for programs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vit_jax.config import ViTConfig
from vit_jax.explain.contributions import head_contributions, why_not_linear
from vit_jax.explain.distances import attention_distance_from_images
from vit_jax.explain.interventions import ablate_each_head, forward
from vit_jax.model import VisionTransformer


@dataclass(frozen=True)
class HeadMethod:
    """A method that gives every head of every layer a number.

    title:             its name in figures
    run:               (model, images, targets [B, K]) -> values [B, K, L, H]
    is_class_specific: whether the values depend on the target; otherwise they are the same for all K
    is_signed:         whether values have both signs
    unit:              of the values
    """

    title: str
    run: Callable[[VisionTransformer, Any, Any], Float[Array, "..."]]
    is_class_specific: bool
    is_signed: bool
    unit: str

    @property
    def label(self) -> str:
        """The title with the unit, as the label of its colours."""
        return f"{self.title} ({self.unit})"


def _distance(model: VisionTransformer, images: Any, targets: Any) -> Float[Array, "b k layers heads"]:
    distances = attention_distance_from_images(model, images)
    return jnp.broadcast_to(distances.swapaxes(0, 1)[:, None], (*targets.shape, *distances.shape[::2]))


def _contribution(model: VisionTransformer, images: Any, targets: Any) -> Float[Array, "b k layers heads"]:
    return jnp.moveaxis(head_contributions(model, images, targets), 0, 2)


def _ablation(model: VisionTransformer, images: Any, targets: Any) -> Float[Array, "b k layers heads"]:
    """Return the drop of each target's logit when a head is set to zero."""
    drops = forward(model, images)[None, None] - ablate_each_head(model, images)  # [L, H, B, C]
    return jnp.take_along_axis(jnp.moveaxis(drops, (2, 3), (0, 1)), targets[:, :, None, None], axis=1)


HEAD_METHODS: dict[str, HeadMethod] = {
    "attention_distance": HeadMethod(
        "Attention distance",
        _distance,
        is_class_specific=False,
        is_signed=False,
        unit="pixels",
    ),
    "head_contributions": HeadMethod(
        "Direct contribution", _contribution, is_class_specific=True, is_signed=True, unit="part of the logit"
    ),
    "head_ablation": HeadMethod(
        "Ablation", _ablation, is_class_specific=True, is_signed=True, unit="drop of the logit without the head"
    ),
}


def why_unavailable_per_head(name: str, config: ViTConfig) -> str:
    """Return why a method of HEAD_METHODS cannot run on a model of this architecture; "" if it can."""
    if HEAD_METHODS[name].is_class_specific and not config.num_classes:
        return "explains a class, and the model has no classification head"
    return why_not_linear(config) if name == "head_contributions" else ""


def compile_head_method(name: str) -> Callable[..., Float[Array, "b k layers heads"]]:
    """Return a compiled function (model, images, targets [B, K]) -> values [B, K, L, H]."""
    return jax.jit(HEAD_METHODS[name].run)
