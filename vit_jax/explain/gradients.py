"""Gradients of class scores with respect to the attention weights of chosen layers, without hooks.

A zero perturbation is added to the weights; the vector-Jacobian product with respect to it is the gradient. K classes
are K cotangents, mapped over one forward pass.

Letters: B batch, K target classes, L layers, H heads, N tokens, C classes.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from vit_jax.errors import InputError
from vit_jax.model import Images, VisionTransformer

Targets = Int[Array | np.ndarray, "..."]


class AttentionTrace(NamedTuple):
    """A forward pass with the pullback to its attention weights.

    logits:  [B, C]
    weights: [B, H, N, N] of each requested layer
    pull:    cotangent of the logits [B, C] -> gradient with respect to each of those weights
    """

    logits: Float[Array, "b c"]
    weights: tuple[Float[Array, "b h n n"], ...]
    pull: Callable[[Float[Array, "b c"]], tuple[Float[Array, "b h n n"], ...]]


def trace_attention(model: VisionTransformer, images: Images, layers: Sequence[int]) -> AttentionTrace:
    """Run the model and return the given layers' attention weights with their pullback."""
    config = model.config
    n = config.num_tokens_for(images.shape[1:3])
    dtype = jnp.promote_types(model.patch_embed.kernel.dtype, jnp.float32)
    zeros = tuple(jnp.zeros((images.shape[0], config.num_heads, n, n), dtype) for _ in layers)

    def run(perturbations: tuple[Any, ...]) -> tuple[jax.Array, tuple[Any, ...]]:
        added = dict(zip(layers, perturbations, strict=True))
        tokens, weights, _ = model.run(images, layers=layers, perturbations=added)
        return model.classify(model.apply_final_norm(tokens)), tuple(weights[layer] for layer in layers)

    logits, pull, weights = jax.vjp(run, zeros, has_aux=True)
    return AttentionTrace(logits, weights, lambda cotangent: pull(cotangent)[0])


def check_targets(targets: Targets, batch: int, num_classes: int) -> Int[Array, "b k"]:
    """Return targets [B] or [B, K] as [B, K]. Raises InputError for a wrong shape or, outside jit, an unknown class."""
    if targets.ndim not in (1, 2) or targets.shape[0] != batch:
        raise InputError(f"targets must be [{batch}] or [{batch}, K], a row per image, not {tuple(targets.shape)}")
    if not isinstance(targets, jax.core.Tracer):
        outside = [int(t) for t in np.asarray(targets).ravel() if not 0 <= t < num_classes]
        if outside:
            raise InputError(f"no class {outside[0]}: the model has {num_classes}, counted 0 to {num_classes - 1}")
    return jnp.asarray(targets).reshape(batch, -1)


def class_cotangents(targets: Int[Array, "b k"], num_classes: int, dtype: Any) -> Float[Array, "k b c"]:
    """Return a one-hot cotangent of the logits for each of the K classes."""
    return jax.nn.one_hot(targets.T, num_classes, dtype=dtype)


def restore_target_axis(maps: Float[Array, "k b ..."], targets: Targets) -> Float[Array, "..."]:
    """Move the batch axis of the maps to the front: [B, K, ...], or [B, ...] for targets [B]."""
    return maps[0] if targets.ndim == 1 else jnp.moveaxis(maps, 0, 1)
