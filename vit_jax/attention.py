"""Multi-head attention (https://arxiv.org/abs/1706.03762): fused, or explicit and with its weights.

Letters: B batch, N tokens (queries), M tokens (keys), H heads, K size of a head, D width (H * K in most models).
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, PRNGKeyArray, UInt32

from vit_jax._xla import einsum, heads_at_once, prefers_attention_per_head, recompute_exp_scores, split_last_axis
from vit_jax.edits import NO_EDIT, Edit, edit_heads
from vit_jax.errors import InputError
from vit_jax.linear import Linear, affine
from vit_jax.position import Rotation

PARTS = "qkv"
HEAD_FUSIONS: dict[str, Callable] = {"mean": jnp.mean, "max": jnp.max, "min": jnp.min}
Key = PRNGKeyArray | UInt32[Array, "2"]
Norm = nnx.LayerNorm | nnx.RMSNorm


def dropout(x: Float[Array, "..."], rate: float, key: Key | None) -> Float[Array, "..."]:
    """Zero a fraction `rate` of the entries and scale the rest by 1 / (1 - rate). Identity without a key."""
    if key is None or rate == 0.0:
        return x
    keep = jax.random.bernoulli(key, 1.0 - rate, x.shape)
    exact = x.astype(jnp.promote_types(x.dtype, jnp.float32))  # bfloat16 has no 0.9
    return jnp.where(keep, (exact / (1.0 - rate)).astype(x.dtype), jnp.zeros((), x.dtype))


def mask_scores(scores: Float[Array, "*b n m"], mask: Bool[Array, "*#b #n m"] | None) -> Float[Array, "*b n m"]:
    """Replace the scores where the mask is False by a value that softmax maps to 0."""
    if mask is None:
        return scores
    masked = jnp.asarray(0.7 * float(jnp.finfo(scores.dtype).min), scores.dtype)  # as jax.nn.dot_product_attention
    return jnp.where(mask, scores, masked)


def _add_scores(scores: Float[Array, "*b n m"], bias: Float[Array, "*#b n m"] | None) -> Float[Array, "*b n m"]:
    return scores if bias is None else scores + bias.astype(scores.dtype)


def attention_weights(
    query: Float[Array, "b n h k"],
    key: Float[Array, "b m h k"],
    mask: Bool[Array, "#b #h #n m"] | None = None,
    bias: Float[Array, "#b h n m"] | None = None,
) -> Float[Array, "b h n m"]:
    """Return softmax(q k^T / sqrt(K) + bias) over the keys, in float32 at least; each row sums to 1.

    Masked keys get exactly 0. A row in which every key is masked is uniform, never NaN.
    """
    dtype = jnp.promote_types(query.dtype, jnp.float32)
    scores = jnp.einsum("bnhk,bmhk->bhnm", query, key, preferred_element_type=dtype) * (query.shape[-1] ** -0.5)
    return jax.nn.softmax(mask_scores(_add_scores(scores, bias), mask), axis=-1)


def check_head_fusion(head_fusion: str) -> None:
    """Raise InputError unless it is a name of HEAD_FUSIONS."""
    if head_fusion not in HEAD_FUSIONS:
        raise InputError(f"unknown head_fusion {head_fusion!r}: one of {', '.join(HEAD_FUSIONS)}")


def fuse_heads(weights: Float[Array, "... h n m"], head_fusion: str) -> Float[Array, "... n m"]:
    """Return the heads' mean, max or min. Raises InputError for another name."""
    check_head_fusion(head_fusion)
    return HEAD_FUSIONS[head_fusion](weights, axis=-3)


@jax.custom_jvp
def attention_per_head(
    query: Float[Array, "b n h k"],
    key: Float[Array, "b m h k"],
    value: Float[Array, "b m h k"],
    mask: Bool[Array, "#b 1 #n m"] | None = None,
    bias: Float[Array, "#b h n m"] | None = None,
) -> Float[Array, "b n h k"]:
    """Scaled dot-product attention, a few heads after another: a kernel for CPUs, see vit_jax._xla.

    Divides by the sum of the exponentials after the product with the values: K numbers a row, not M.
    """
    return _attend_in_groups(heads_at_once(query.shape[0], query.shape[2]), query, key, value, mask, bias)


@attention_per_head.defjvp
def _differentiate_one_head_at_a_time(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    return jax.jvp(partial(_attend_in_groups, 1), primals, tangents)


def _attend_in_groups(
    size: int, query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array | None, bias: jax.Array | None
) -> Float[Array, "b n h k"]:
    """Attend with `size` heads at a time."""
    count = query.shape[2] // size
    groups = [jnp.split(part, count, axis=2) for part in (query, key, value)]
    biases = [None] * count if bias is None else jnp.split(bias, count, axis=1)
    outputs = [_attend_group(q, k, v, mask, b) for q, k, v, b in zip(*groups, biases, strict=True)]
    return jnp.concatenate(outputs, axis=2)


def _attend_group(
    query: Float[Array, "b n g k"],
    key: Float[Array, "b m g k"],
    value: Float[Array, "b m g k"],
    mask: Bool[Array, "#b 1 #n m"] | None,
    bias: Float[Array, "#b g n m"] | None,
) -> Float[Array, "b n g k"]:
    """Attend with a group of heads as if they were images of one head."""
    b, n, g, k = query.shape
    parts = [part.swapaxes(1, 2).reshape(b * g, -1, k) for part in (query, key, value)]
    if mask is not None:
        mask = mask[:, 0] if mask.shape[0] == 1 else jnp.repeat(mask[:, 0], g, axis=0)
    if bias is not None:
        shared = bias if g == 1 else jnp.broadcast_to(bias, (b, *bias.shape[1:]))  # one head at a time stores it once
        bias = shared.reshape(-1, *bias.shape[2:])
    return _attend_one_head(*parts, mask, bias).reshape(b, g, n, k).swapaxes(1, 2)


@recompute_exp_scores
def _attend_one_head(
    query: Float[Array, "b n k"],
    key: Float[Array, "b m k"],
    value: Float[Array, "b m k"],
    mask: Bool[Array, "#b #n m"] | None,
    bias: Float[Array, "#b n m"] | None,
) -> Float[Array, "b n k"]:
    dtype = jnp.promote_types(query.dtype, jnp.float32)
    scaled = query * query.shape[-1] ** -0.5
    scores = mask_scores(_add_scores(einsum("bnk,bmk->bnm", scaled, key, dtype), bias), mask)
    row_max = checkpoint_name(jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True)), "row_max")
    exp_scores = jnp.exp(scores - row_max)
    weighted = einsum("bnm,bmk->bnk", exp_scores.astype(value.dtype), value, dtype)
    total = checkpoint_name(exp_scores.sum(axis=-1, keepdims=True), "total")
    return (checkpoint_name(weighted, "weighted_values") / total).astype(value.dtype)


def compute_capability() -> str:
    """Return the CUDA compute capability of the default device, "8.0"; "" for another kind of device."""
    device = jax.local_devices()[0]
    return str(getattr(device, "compute_capability", "")) if device.platform == "gpu" else ""


def cudnn_supports(dtype: jnp.dtype, head_size: int, capability: str) -> bool:
    """Whether cuDNN has a kernel for heads of this type and size, without a mask, at this compute capability.

    It takes 16-bit floats and head sizes up to 128 in multiples of 8, from Ampere (8.0) on. jax does not select it.
    """
    major = capability.partition(".")[0]
    ampere = major.isdigit() and int(major) >= 8
    return ampere and dtype in (jnp.bfloat16, jnp.float16) and head_size % 8 == 0 and head_size <= 128


def attend(
    query: Float[Array, "b n h k"],
    key: Float[Array, "b m h k"],
    value: Float[Array, "b m h k"],
    *,
    mask: Bool[Array, "#b #h #n m"] | None = None,
    bias: Float[Array, "#b h n m"] | None = None,
    return_weights: bool = False,
    perturbation: Float[Array, "b h n m"] | None = None,
    dropout_rate: float = 0.0,
    dropout_key: Key | None = None,
    workarounds: bool = True,
) -> tuple[Float[Array, "b n h k"], Float[Array, "b h n m"] | None]:
    """Scaled dot-product attention: softmax(q k^T / sqrt(K) + bias) v, and its weights when `return_weights` is set.

    Uses a fused kernel where it can: cuDNN's or jax's, or a few heads at a time on a CPU. Weights, a perturbation,
    dropout and float64 (jax's kernel has a float32 softmax) need the explicit formula. Both compute scores and
    softmax in float32 at least and the product with the values in their own type, so the output agrees up to rounding.

    mask:         True where a query may attend to a key.
    bias:         added to the scores, as a relative position bias is.
    perturbation: added to the weights. The gradient with respect to zeros here is the gradient of the weights.

    The weights returned are those before dropout.
    """
    has_dropout = dropout_key is not None and dropout_rate > 0.0
    if return_weights or has_dropout or perturbation is not None or query.dtype == jnp.float64:
        weights = attention_weights(query, key, mask, bias)
        if perturbation is not None:
            weights = weights + perturbation
        dropped = dropout(weights, dropout_rate, dropout_key).astype(value.dtype)
        return jnp.einsum("bhnm,bmhk->bnhk", dropped, value), weights if return_weights else None
    heads_share_mask = mask is None or mask.shape[1] == 1
    if heads_share_mask and prefers_attention_per_head(query.shape[1], key.shape[1], workarounds):
        return attention_per_head(query, key, value, mask, bias), None
    is_plain = mask is None and bias is None
    cudnn = is_plain and cudnn_supports(query.dtype, query.shape[-1], compute_capability())
    kernel: Literal["cudnn"] | None = "cudnn" if cudnn else None
    return jax.nn.dot_product_attention(query, key, value, bias, mask, implementation=kernel), None


class MultiHeadAttention(nnx.Module):
    """Attention with one matrix for q, k and v: qkv's columns are (q | k | v), heads within each.

    Calling it is self-attention. Other uses (cross-attention, positions added to queries and keys only) combine
    `project`, `attend` and `merge_heads`.

    heads_width: length of all heads' queries together, by default the width.
    key_bias:    False holds the keys' part of qkv's bias at zero: it has no effect and no gradient.
    norm:        of the concatenated heads, before the output layer.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        *,
        heads_width: int | None = None,
        qkv_bias: bool = True,
        key_bias: bool = True,
        out_bias: bool = True,
        norm: Norm | None = None,
        dropout_rate: float = 0.0,
        rngs: nnx.Rngs,
    ):
        inner = width if heads_width is None else heads_width
        # The distribution that Xavier-uniform gives to three separate D x D matrices.
        init = jax.nn.initializers.variance_scaling(1.0, "fan_in", "uniform")
        self.qkv = Linear(width, 3 * inner, use_bias=qkv_bias, kernel_init=init, rngs=rngs)
        xavier = jax.nn.initializers.xavier_uniform()
        self.out = Linear(inner, width, use_bias=out_bias, kernel_init=xavier, rngs=rngs)
        if norm is not None:
            self.norm = norm
        self.has_norm, self.key_bias = norm is not None, key_bias
        self.num_heads = num_heads
        self.dropout_rate = dropout_rate

    def __call__(
        self,
        x: Float[Array, "b n d"],
        *,
        rotation: Rotation | None = None,
        bias: Float[Array, "1 h n n"] | None = None,
        return_weights: bool = False,
        perturbation: Float[Array, "b h q n"] | None = None,
        key: Key | None = None,
        num_queries: int | None = None,
        edit: Edit = NO_EDIT,
        workarounds: bool = True,
    ) -> tuple[Float[Array, "b q d"], Float[Array, "b h q n"] | None]:
        """Self-attention, and its weights when asked for; see attend().

        rotation:    of the tokens' queries and keys.
        bias:        of the scores of every token as a query.
        num_queries: compute the output of only the first so many tokens; they still attend to all.
        edit:        of the heads' outputs.
        """
        if num_queries is None:
            q, k, v = self.project(x, PARTS, workarounds)
        else:
            [q] = self.project(x[:, :num_queries], "q", workarounds)
            k, v = self.project(x, "kv", workarounds)
        if rotation is not None:
            q, k = rotation[:num_queries](q), rotation(k)
        output, weights = attend(
            q,
            k,
            v,
            bias=None if bias is None else bias[:, :, :num_queries],
            return_weights=return_weights,
            perturbation=perturbation,
            dropout_rate=self.dropout_rate,
            dropout_key=key,
            workarounds=workarounds,
        )
        return self.merge_heads(edit_heads(output, edit)), weights

    def project(self, x: Float[Array, "b n d"], parts: str, workarounds: bool = True) -> list[Float[Array, "b n h k"]]:
        """Return the named parts, consecutive letters of "qkv" ("q", "qk", "kv", "v", ...), by one matrix product."""
        b, n, _ = x.shape
        first, count = PARTS.index(parts), len(parts)
        kernel, bias = self.qkv.kernel[...], self._qkv_bias()
        if count < len(PARTS):
            inner = kernel.shape[1] // len(PARTS)
            columns = slice(first * inner, (first + count) * inner)
            bias, kernel = None if bias is None else bias[columns], kernel[:, columns]
        projected = affine(x, kernel, bias)
        return [part.reshape(b, n, self.num_heads, -1) for part in split_last_axis(projected, count, workarounds)]

    def _qkv_bias(self) -> Float[Array, " i"] | None:
        """Return the bias of q, k and v, its part of the keys zero unless they have one."""
        bias = None if self.qkv.bias is None else self.qkv.bias[...]
        if bias is None or self.key_bias:
            return bias
        mask = np.repeat([1, 0, 1], bias.shape[0] // len(PARTS))
        return bias * jnp.asarray(mask, bias.dtype)

    def merge_heads(self, heads: Float[Array, "b n h k"]) -> Float[Array, "b n d"]:
        """Concatenate the heads and apply the output layer, after its norm if there is one."""
        b, n, h, k = heads.shape
        merged = heads.reshape(b, n, h * k)
        return self.out(self.norm(merged) if self.has_norm else merged)
