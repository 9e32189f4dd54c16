"""Multi-head attention (https://arxiv.org/abs/1706.03762): fused, or with its weights when asked.

Letters: B batch, N tokens (queries), M tokens (keys), H heads, K size of a head, D width (H * K in most models).
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, PRNGKeyArray, UInt32

PARTS = "qkv"
LARGE = 128 * 128  # scores of a head, from where on a CPU gains by taking one head at a time
Key = PRNGKeyArray | UInt32[Array, "2"]


def dropout(x: Float[Array, "..."], rate: float, key: Key | None) -> Float[Array, "..."]:
    """Zero a share `rate` of the entries and scale the rest by 1 / (1 - rate); no key, no dropout."""
    if key is None or rate == 0.0:
        return x
    keep = jax.random.bernoulli(key, 1.0 - rate, x.shape)
    exact = x.astype(jnp.promote_types(x.dtype, jnp.float32))  # bfloat16 has no 0.9
    return jnp.where(keep, (exact / (1.0 - rate)).astype(x.dtype), jnp.zeros((), x.dtype))


def mask_scores(scores: Float[Array, "*b n m"], mask: Bool[Array, "*#b #n m"] | None) -> Float[Array, "*b n m"]:
    """The scores where the mask is True, elsewhere so little that softmax makes it 0; all of them without a mask."""
    if mask is None:
        return scores
    return jnp.where(mask, scores, jnp.asarray(0.7 * float(jnp.finfo(scores.dtype).min), scores.dtype))  # as jax's own


def attention_weights(
    query: Float[Array, "b n h k"], key: Float[Array, "b m h k"], mask: Bool[Array, "#b #h #n m"] | None = None
) -> Float[Array, "b h n m"]:
    """softmax(q k^T / sqrt(K)) over the keys: each row sums to 1. At least float32, whatever the inputs are.

    Keys where the mask is False get exactly 0, but in rows that have no other: those are even, never NaN.
    """
    dtype = jnp.promote_types(query.dtype, jnp.float32)
    scores = jnp.einsum("bnhk,bmhk->bhnm", query, key, preferred_element_type=dtype) * (query.shape[-1] ** -0.5)
    return jax.nn.softmax(mask_scores(scores, mask), axis=-1)


def attention_per_head(
    query: Float[Array, "b n h k"],
    key: Float[Array, "b m h k"],
    value: Float[Array, "b m h k"],
    mask: Bool[Array, "#b 1 #n m"] | None = None,
) -> Float[Array, "b n h k"]:
    """Scaled dot-product attention one head after another, for a CPU: a head's scores stay in its cache.

    The division by the sum of the exponentials comes after the product with the values: K numbers a row, not M.
    """
    of_all = None if mask is None else mask[:, 0]
    heads = [jnp.split(part, query.shape[2], axis=2) for part in (query, key, value)]  # split's gradient is one array
    each = [_one_head(q[:, :, 0], k[:, :, 0], v[:, :, 0], of_all) for q, k, v in zip(*heads, strict=True)]
    return jnp.stack(each, axis=2)


@partial(jax.checkpoint, policy=jax.checkpoint_policies.save_only_these_names("greatest", "mixed", "total"))
def _one_head(
    query: Float[Array, "b n k"],
    key: Float[Array, "b m k"],
    value: Float[Array, "b m k"],
    mask: Bool[Array, "#b #n m"] | None,
) -> Float[Array, "b n k"]:
    """One head. The backward pass has the rows' sums and works the exponentials out again, so no [N, M] is kept.

    As in FlashAttention (https://arxiv.org/abs/2205.14135), with the compiler's own products in place of a kernel.
    """
    dtype = jnp.promote_types(query.dtype, jnp.float32)
    scaled = query * query.shape[-1] ** -0.5
    scores = mask_scores(jnp.einsum("bnk,bmk->bnm", scaled, key, preferred_element_type=dtype), mask)
    greatest = checkpoint_name(jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True)), "greatest")
    raised = jnp.exp(scores - greatest)
    mixed = jnp.einsum("bnm,bmk->bnk", raised.astype(value.dtype), value, preferred_element_type=dtype)
    total = checkpoint_name(raised.sum(axis=-1, keepdims=True), "total")
    return (checkpoint_name(mixed, "mixed") / total).astype(value.dtype)


def compute_capability() -> str:
    """The CUDA compute capability of the device that programs run on by default, "8.0"; "" for another device."""
    device = jax.local_devices()[0]
    return str(getattr(device, "compute_capability", "")) if device.platform == "gpu" else ""


def cudnn_supports(dtype: jnp.dtype, size: int, capability: str) -> bool:
    """Whether cuDNN attends to heads of this type and size, without a mask, on a GPU of this compute capability.

    It has numbers of 16 bits and heads of up to 128, a multiple of 8, from Ampere (8.0) on. jax chooses XLA's itself.
    """
    major = capability.partition(".")[0]
    ampere = major.isdigit() and int(major) >= 8
    return ampere and dtype in (jnp.bfloat16, jnp.float16) and size % 8 == 0 and size <= 128


def attend(
    query: Float[Array, "b n h k"],
    key: Float[Array, "b m h k"],
    value: Float[Array, "b m h k"],
    *,
    mask: Bool[Array, "#b #h #n m"] | None = None,
    return_weights: bool = False,
    perturbation: Float[Array, "b h n m"] | None = None,
    dropout_rate: float = 0.0,
    dropout_key: Key | None = None,
) -> tuple[Float[Array, "b n h k"], Float[Array, "b h n m"] | None]:
    """Scaled dot-product attention; the weights [B, H, N, M] come with it when asked for, else None.

    Without weights and dropout this is jax's fused call (cuDNN's where it has one), but in float64, where that one's
    softmax would still work in float32, and on a CPU where a head has many scores and no mask of its own, which takes
    one head at a time. The explicit form does the same arithmetic (scores and softmax in float32 at least, the product
    with the values in their own type), so that asking for weights does not move the answer beyond rounding. The
    returned weights are those before dropout.

    mask is True where a query may look at a key.
    perturbation is added to the weights: with zeros there, the gradient in it is the gradient in the weights.
    """
    drop = dropout_key is not None and dropout_rate > 0.0
    if not (return_weights or drop or perturbation is not None or query.dtype == jnp.float64):
        shared = mask is None or mask.shape[1] == 1
        if shared and query.shape[1] * key.shape[1] >= LARGE and jax.default_backend() == "cpu":
            return attention_per_head(query, key, value, mask), None
        cudnn = mask is None and cudnn_supports(query.dtype, query.shape[-1], compute_capability())
        return jax.nn.dot_product_attention(
            query, key, value, mask=mask, implementation="cudnn" if cudnn else None
        ), None
    weights = attention_weights(query, key, mask)
    if perturbation is not None:
        weights = weights + perturbation
    applied = dropout(weights, dropout_rate, dropout_key).astype(value.dtype)
    mixed = jnp.einsum("bhnm,bmhk->bnhk", applied, value)
    return mixed, weights if return_weights else None


class MultiHeadAttention(nnx.Module):
    """q, k and v from one matrix product, and what joins the heads: qkv's columns are (q | k | v), heads within.

    Called, it is self-attention. What attends otherwise (other keys than queries, positions that values go without)
    takes the parts that it needs by `project`, and `attend` and `join` them.

    heads_width: the length of all heads' queries side by side, where it is not the width.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        *,
        heads_width: int | None = None,
        qkv_bias: bool = True,
        out_bias: bool = True,
        dropout_rate: float = 0.0,
        rngs: nnx.Rngs,
    ):
        inner = width if heads_width is None else heads_width
        # The distribution that Xavier-uniform gives to three separate D x D matrices.
        init = jax.nn.initializers.variance_scaling(1.0, "fan_in", "uniform")
        self.qkv = nnx.Linear(width, 3 * inner, use_bias=qkv_bias, kernel_init=init, rngs=rngs)
        xavier = jax.nn.initializers.xavier_uniform()
        self.out = nnx.Linear(inner, width, use_bias=out_bias, kernel_init=xavier, rngs=rngs)
        self.num_heads = num_heads
        self.dropout_rate = dropout_rate

    def __call__(
        self,
        x: Float[Array, "b n d"],
        *,
        return_weights: bool = False,
        perturbation: Float[Array, "b h n n"] | None = None,
        key: Key | None = None,
        first: int | None = None,
    ) -> tuple[Float[Array, "b q d"], Float[Array, "b h q n"] | None]:
        """Attend over the tokens; the weights and the perturbation are those of attend().

        first: only so many tokens, from the first on, are answered, while they look at all of them.
        """
        if first is None:
            q, k, v = self.project(x, PARTS)
        else:
            [q], [k, v] = self.project(x[:, :first], "q"), self.project(x, "kv")
        mixed, weights = attend(
            q,
            k,
            v,
            return_weights=return_weights,
            perturbation=perturbation,
            dropout_rate=self.dropout_rate,
            dropout_key=key,
        )
        return self.join(mixed), weights

    def project(self, x: Float[Array, "b n d"], parts: str) -> list[Float[Array, "b n h k"]]:
        """The parts of x named, neighbours in "qkv" ("q", "qk", "kv", "v", ...), by one matrix product."""
        b, n, _ = x.shape
        first, count = PARTS.index(parts), len(parts)
        if count == len(PARTS):
            made = self.qkv(x)
        else:
            inner = self.qkv.kernel.shape[1] // len(PARTS)
            columns = slice(first * inner, (first + count) * inner)
            made = x @ self.qkv.kernel[...][:, columns]
            if self.qkv.bias is not None:
                made = made + self.qkv.bias[...][columns].reshape(1, 1, -1)
        return [part.reshape(b, n, self.num_heads, -1) for part in jnp.split(made, count, axis=-1)]

    def join(self, mixed: Float[Array, "b n h k"]) -> Float[Array, "b n d"]:
        """The heads' answers side by side, through the output layer."""
        b, n, h, k = mixed.shape
        return self.out(mixed.reshape(b, n, h * k))
