"""What each attention head does, as tables over layers and heads, by name and with one signature for programs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vit_jax.config import ViTConfig
from vit_jax.explain.distances import attention_distance_from_images
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


HEAD_METHODS: dict[str, HeadMethod] = {
    "attention_distance": HeadMethod(
        "Attention distance",
        _distance,
        is_class_specific=False,
        is_signed=False,
        unit="pixels",
    ),
}


def why_unavailable_per_head(name: str, config: ViTConfig) -> str:
    """Return why a method of HEAD_METHODS cannot run on a model of this architecture; "" if it can."""
    if HEAD_METHODS[name].is_class_specific and not config.num_classes:
        return "explains a class, and the model has no classification head"
    return ""


def compile_head_method(name: str) -> Callable[..., Float[Array, "b k layers heads"]]:
    """Return a compiled function (model, images, targets [B, K]) -> values [B, K, L, H]."""
    return jax.jit(HEAD_METHODS[name].run)
