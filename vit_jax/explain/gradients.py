"""The gradient of class scores in every layer's attention weights, without hooks.

A zero perturbation is added to the weights, and the vector-Jacobian product is taken in it; K classes are K
cotangents, mapped over one forward pass.

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
    """One forward pass that can be pulled back to its attention weights.

    logits:  [B, C]
    weights: for each layer asked for, [B, H, N, N]
    pull:    a cotangent of the logits [B, C] -> the gradient in each of those weights
    """

    logits: Float[Array, "b c"]
    weights: tuple[Float[Array, "b h n n"], ...]
    pull: Callable[[Float[Array, "b c"]], tuple[Float[Array, "b h n n"], ...]]


def trace_attention(model: VisionTransformer, images: Images, layers: Sequence[int]) -> AttentionTrace:
    """Run the model, holding what the gradient in the given layers' attention weights needs."""
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
    """Targets [B] or [B, K] as [B, K]. Raises InputError for another shape or, outside jit, a class there is not."""
    if targets.ndim not in (1, 2) or targets.shape[0] != batch:
        raise InputError(f"targets are [{batch}] or [{batch}, K], one row for each image, not {tuple(targets.shape)}")
    if not isinstance(targets, jax.core.Tracer):
        outside = [int(t) for t in np.asarray(targets).ravel() if not 0 <= t < num_classes]
        if outside:
            raise InputError(f"no class {outside[0]}: the model has {num_classes}, counted 0 to {num_classes - 1}")
    return jnp.asarray(targets).reshape(batch, -1)


def class_cotangents(targets: Int[Array, "b k"], num_classes: int, dtype: Any) -> Float[Array, "k b c"]:
    """One cotangent of the logits for each of the K classes."""
    return jax.nn.one_hot(targets.T, num_classes, dtype=dtype)


def restore_target_axis(maps: Float[Array, "k b ..."], targets: Targets) -> Float[Array, "..."]:
    """Maps with the batch first again, [B, K, ...], or [B, ...] where targets were [B]."""
    return maps[0] if targets.ndim == 1 else jnp.moveaxis(maps, 0, 1)
