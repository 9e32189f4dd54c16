"""The explanation methods by name, all with one signature, for programs that compare them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vit_jax.errors import InputError
from vit_jax.explain.attribution import integrated_gradients, rise
from vit_jax.explain.class_maps import attention_gradcam, grad_rollout, relevance
from vit_jax.explain.flow import attention_flow
from vit_jax.explain.heatmap import to_grid
from vit_jax.explain.rollout import attention_rollout, readout
from vit_jax.model import VisionTransformer, forward_with_attention, resolve_layers


@dataclass(frozen=True)
class MethodOptions:
    """Options of the methods.

    layer:     of methods with uses_layer
    head:      of attention; None for the mean over heads
    steps:     of integrated_gradients
    num_masks: of rise
    seed:      of rise's masks
    """

    layer: int = -1
    head: int | None = None
    steps: int = 32
    num_masks: int = 1000
    seed: int = 0


@dataclass(frozen=True)
class Method:
    """An explanation method.

    run:               (model, images, targets [B, K], options) -> scores [B, K, n], or [B, K, h, w] if pixelwise
    is_class_specific: whether the map depends on the target; otherwise it is the same for all K
    uses_layer:        whether the map is of the single layer options.layer
    is_pixelwise:      whether the scores are per pixel instead of per patch
    """

    run: Callable[[VisionTransformer, Any, Any, MethodOptions], Float[Array, "..."]]
    is_class_specific: bool
    uses_layer: bool = False
    is_pixelwise: bool = False


def head_attention(model: VisionTransformer, images: Any, layer: int) -> Float[Array, "b h n"]:
    """Return each head's attention to the patches in one layer, from the token that the head reads (see readout)."""
    attention = forward_with_attention(model, images, layers=(layer,)).attention[0]
    rows = jnp.einsum("q,bhqm->bhm", readout(model, attention.shape[-1]), attention)
    return rows[..., model.config.num_prefix :]


def _repeat_over_targets(maps: Float[Array, "b n"], targets: Any) -> Float[Array, "b k n"]:
    return jnp.broadcast_to(maps[:, None], (*targets.shape, maps.shape[-1]))


def _attention(model: VisionTransformer, images: Any, targets: Any, options: MethodOptions) -> Float[Array, "b k n"]:
    rows = head_attention(model, images, options.layer)
    return _repeat_over_targets(rows.mean(axis=1) if options.head is None else rows[:, options.head], targets)


def _rollout(model: VisionTransformer, images: Any, targets: Any, options: MethodOptions) -> Float[Array, "b k n"]:
    attention = forward_with_attention(model, images, head_fusion="mean").attention
    rollout = attention_rollout(attention, query=readout(model, attention.shape[-1]))
    return _repeat_over_targets(rollout[:, model.config.num_prefix :], targets)


METHODS: dict[str, Method] = {
    "attention": Method(_attention, is_class_specific=False, uses_layer=True),
    "rollout": Method(_rollout, is_class_specific=False),
    "flow": Method(lambda m, x, t, o: attention_flow(m, x, t), is_class_specific=False),
    "grad_rollout": Method(lambda m, x, t, o: grad_rollout(m, x, t), is_class_specific=True),
    "relevance": Method(lambda m, x, t, o: relevance(m, x, t), is_class_specific=True),
    "gradcam": Method(
        lambda m, x, t, o: attention_gradcam(m, x, t, layer=o.layer), is_class_specific=True, uses_layer=True
    ),
    "integrated_gradients": Method(
        lambda m, x, t, o: integrated_gradients(m, x, t, steps=o.steps).maps, is_class_specific=True
    ),
    "rise": Method(
        lambda m, x, t, o: rise(m, x, t, key=jax.random.key(o.seed), num_masks=o.num_masks),
        is_class_specific=True,
        is_pixelwise=True,
    ),
}
DEFAULT_METHODS = ("attention", "rollout", "relevance")


def check_method_options(model: VisionTransformer, options: MethodOptions) -> MethodOptions:
    """Return the options if they fit the model. Raises InputError for an unknown layer or head."""
    resolve_layers([options.layer], len(model.blocks))
    heads = model.config.num_heads
    if options.head is not None and not -heads <= options.head < heads:
        raise InputError(f"no head {options.head}: the model has {heads}, counted 0 to {heads - 1} or from the end")
    return options


def compile_method(name: str, options: MethodOptions) -> Callable[..., Float[Array, "b k gh gw"]]:
    """Return a compiled function (model, images, targets [B, K]) -> maps [B, K, gh, gw], or [B, K, h, w] if pixelwise.

    Raises InputError for an unknown method.
    """
    if name not in METHODS:
        raise InputError(f"unknown method {name!r}: one of {', '.join(METHODS)}")
    method = METHODS[name]

    @jax.jit
    def compute_maps(model: VisionTransformer, images: Any, targets: Any) -> Float[Array, "b k gh gw"]:
        scores = method.run(model, images, targets, options)
        return scores if method.is_pixelwise else to_grid(scores, model.config.grid_for(images.shape[1:3]))

    return compute_maps
