"""Attention rollout (Abnar and Zuidema, ACL 2020, https://arxiv.org/abs/2005.00928) and plain [class] attention.

    R_0 = I,   R_l = norm(A_l + I) R_{l-1}

where A_l is the attention of layer l, fused over heads, and norm divides each row by its own sum. Differs from a widely
copied implementation, which divides columns by row sums, mixes the items of a batch, and discards entries over the
whole matrix of the first item.

Letters: L layers, B batch, H heads, N tokens.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vit_jax.attention import check_head_fusion, fuse_heads
from vit_jax.errors import InputError
from vit_jax.model import Images, VisionTransformer

NO_READOUT = "the model uses attention pooling: no fixed row to read"


def readout(model: VisionTransformer, num_tokens: int) -> Float[Array, " n"]:
    """Return the weight [N] with which the classification head reads each token; the weights sum to 1.

    [class] alone, the mean of the patches, half of each, or the mean of all tokens; half [class] and half
    [distillation] for two heads.
    Raises InputError for a model with attention pooling, whose weights depend on the image.
    """
    if model.config.pools_by_attention:
        raise InputError(f"{NO_READOUT}; use integrated_gradients or rise")
    read, prefix = jnp.zeros(num_tokens), model.config.num_prefix
    if model.config.pooling == "cls":
        return read.at[:2].set(0.5) if model.config.distillation_head else read.at[0].set(1.0)
    if model.config.pooling == "mean":
        return jnp.full(num_tokens, 1.0 / num_tokens)
    patches = read.at[prefix:].set(1.0 / (num_tokens - prefix))
    return patches if model.config.pooling == "gap" else patches.at[0].set(1.0) / 2


def transition_matrix(
    weights: Float[Array, "... n n"], discard_ratio: float = 0.0, class_token: bool = True
) -> Float[Array, "... n n"]:
    """Return norm(A + I), with the lowest discard_ratio of each row's entries zeroed, never the [class] column."""
    n = weights.shape[-1]
    num_discarded = int(discard_ratio * n)
    if num_discarded:
        rank = jnp.argsort(jnp.argsort(weights, axis=-1), axis=-1)
        keep = rank >= num_discarded
        if class_token:
            keep = keep.at[..., 0].set(True)
        weights = jnp.where(keep, weights, 0.0)
    weights = weights + jnp.eye(n, dtype=weights.dtype).reshape((1,) * (weights.ndim - 2) + (n, n))
    return weights / weights.sum(axis=-1, keepdims=True)


def check_discard_ratio(discard_ratio: float) -> None:
    """Raise InputError unless discard_ratio is in [0, 1)."""
    if not 0 <= discard_ratio < 1:
        raise InputError(f"discard_ratio must be in [0, 1), not {discard_ratio}")


def check_attention_shape(attention: Float[Array, "..."]) -> None:
    """Raise InputError unless attention is [L, B, H, N, N] or, with fused heads, [L, B, N, N]."""
    if attention.ndim not in (4, 5) or attention.shape[-1] != attention.shape[-2]:
        raise InputError(f"attention must be [L, B, H, N, N] or, fused, [L, B, N, N], not {attention.shape}")


def _check_rollout(attention: Float[Array, "..."], discard_ratio: float, start_layer: int, query: Any) -> None:
    check_discard_ratio(discard_ratio)
    check_attention_shape(attention)
    layers, tokens = attention.shape[0], attention.shape[-1]
    if not -layers <= start_layer < layers:
        raise InputError(f"no layer {start_layer}: there are {layers}")
    if isinstance(query, int) and not -tokens <= query < tokens:
        raise InputError(f"no token {query}: there are {tokens}")
    if not (query is None or isinstance(query, int)) and query.shape != (tokens,):
        raise InputError(f"query must be a token or weights over {tokens} tokens, not an array {query.shape}")


def attention_rollout(
    attention: Float[Array, "..."],
    *,
    head_fusion: str = "mean",
    discard_ratio: float = 0.0,
    start_layer: int = 0,
    query: int | Float[Array | np.ndarray, " n"] | None = None,
    class_token: bool = True,
) -> Float[Array, "..."]:
    """Return the contribution of each input token to each output token through all layers: [B, N, N]; rows sum to 1.

    attention:     [L, B, H, N, N] from forward_with_attention, or [L, B, N, N] with fused heads.
    head_fusion:   "mean", "max" or "min".
    discard_ratio: fraction in [0, 1) of each row's entries, the lowest ones, to zero; never the [class] column.
    start_layer:   the first layer that contributes; negative counts from the end.
    query:         an output token, or weights [N] over the output tokens (see readout). Returns that row, or that
                   weighted sum of rows, [B, N], in O(L N^2) instead of O(L N^3) for the matrix.
    class_token:   whether token 0 is a [class] token.

    Raises InputError for a wrong shape, an unknown head_fusion, layer or token, or a discard_ratio out of range.
    """
    _check_rollout(attention, discard_ratio, start_layer, query)

    def step(weights: Float[Array, "..."]) -> Float[Array, "b n n"]:
        fused = fuse_heads(weights, head_fusion) if weights.ndim == 4 else weights
        return transition_matrix(fused, discard_ratio, class_token)

    check_head_fusion(head_fusion)
    layers = attention[start_layer:]
    batch, n = attention.shape[1], attention.shape[-1]
    if query is None:
        identity = jnp.broadcast_to(jnp.eye(n, dtype=attention.dtype), (batch, n, n))
        return jax.lax.scan(lambda r, a: (step(a) @ r, None), identity, layers)[0]
    start = jnp.zeros(n).at[query].set(1.0) if isinstance(query, int) else jnp.asarray(query)
    row = jnp.broadcast_to(start.astype(attention.dtype), (batch, 1, n))
    return jax.lax.scan(lambda r, a: (r @ step(a), None), row, layers, reverse=True)[0][:, 0]


def rollout_from_images(
    model: VisionTransformer, images: Images, *, head_fusion: str = "mean", discard_ratio: float = 0.0
) -> Float[Array, "b n n"]:
    """Return attention_rollout of the model, [B, N, N], while holding the weights of only one layer at a time.

    Raises InputError as the model and attention_rollout do.
    """
    check_discard_ratio(discard_ratio)

    def step(rollout: Any, layer: int, weights: Float[Array, "b h n n"]) -> Float[Array, "b n n"]:
        return transition_matrix(fuse_heads(weights, head_fusion), discard_ratio, model.config.class_token) @ rollout

    batch, n = images.shape[0], model.config.num_tokens_for(images.shape[1:3])
    identity = jnp.broadcast_to(jnp.eye(n), (batch, n, n))
    return model.run(images, layers=range(len(model.blocks)), fold=step, initial=identity).attention


def cls_attention(
    attention: Float[Array, "l b h n n"], *, layer: int = -1, num_prefix: int = 1
) -> Float[Array, "b h m"]:
    """Return the attention of the [class] token (token 0) to the patches, per head: [B, H, N - num_prefix].

    Raises InputError for an unknown layer, or a num_prefix that leaves no patch.
    """
    if not -attention.shape[0] <= layer < attention.shape[0]:
        raise InputError(f"no layer {layer}: there are {attention.shape[0]}")
    if not 1 <= num_prefix < attention.shape[-1]:
        raise InputError(f"num_prefix must be 1 ([class]) to {attention.shape[-1] - 1}, not {num_prefix}")
    return attention[layer][:, :, 0, num_prefix:]
