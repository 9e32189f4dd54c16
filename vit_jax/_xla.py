"""Every workaround for a compiler or an allocator, each with its reason, its upstream issue and when it can go.

Model code calls these helpers by name. `BlockExecution(workarounds=False)` turns off all those that a model's own
arithmetic uses: for export (OpenVINO) and for compilers other than XLA. Values then differ by rounding only.

Figures are of B_16 at 384x384 in float32, a step at batch 4, on two cores; docs/performance.md has the rest.
"""

import ctypes
import os
from collections.abc import Callable, MutableMapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib

AFFECTED_JAXLIB = "0.10.2"  # the newest for Python 3.11; what names a pass or a flag applies to this version alone
CACHED_SCORES = 128 * 128  # scores of one head from which attention a few heads at a time is faster on a CPU
PRODUCTS_AT_ONCE = 8  # a product of matrices in a batch of fewer is slower per matrix
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8  # of glibc's malloc.h


def materialize(x: jax.Array, workarounds: bool = True) -> jax.Array:
    """Stop XLA from fusing x into every consumer. Identity in value.

    The residual stream is a sum that grows with every block. XLA's CPU compiler fuses it into whatever reads it and
    recomputes the sum there. jaxlib 0.10.2 respects the barrier only in programs compiled with compiler_options().

    Upstream:   no upstream issue filed.
    Effect:     a step takes 9.7 s instead of 16.3; a caption's backbone 74 ms instead of 91. On jaxlib 0.12.0.1 a step
                with all the helpers above compiler_options() takes 0.78 of the time without, at 224.
    Remove when a step without barriers is as fast.
    """
    return jax.lax.optimization_barrier(x) if workarounds else x


def recompute_activation(function: Callable[..., Any], workarounds: bool = True) -> Callable[..., Any]:
    """Make the backward pass recompute function(activation, ...) from its arrays; only they are saved.

    An MLP's activation costs less to recompute than to keep: without this, XLA's CPU compiler keeps it and its input.

    Upstream:   no upstream issue filed.
    Effect:     a step's working memory is 1.15 GB instead of 1.73, in 0.995 of the time.
    Remove when the compiler rematerializes elementwise functions by itself.
    """
    return jax.checkpoint(function, static_argnums=0) if workarounds else function


def recompute_exp_scores(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make the backward pass of one head's attention recompute its exponentials; no [N, M] array is saved.

    Saves what is named "row_max", "weighted_values" and "total", as FlashAttention does (arXiv 2205.14135).

    Upstream:   no upstream issue filed; XLA has no fused attention kernel for CPUs.
    Effect:     a step's working memory is 1.73 GB instead of 2.43, in 1.017 of the time (recomputing all: 1.11).
    Remove with attention_per_head.
    """
    saved = jax.checkpoint_policies.save_only_these_names("row_max", "weighted_values", "total")
    return jax.checkpoint(function, policy=saved)


def prefers_attention_per_head(num_queries: int, num_keys: int, workarounds: bool = True) -> bool:
    """Whether vit_jax.attention.attention_per_head is the faster kernel: on a CPU, for many scores in a head.

    A few heads' scores stay in the processor's cache, those of all heads and images do not.

    Upstream:   no upstream issue filed; XLA has no fused attention kernel for CPUs.
    Effect:     a forward pass takes 0.92 of the time; attention with its gradient 156 ms a layer instead of 243.
    Remove when jax.nn.dot_product_attention is as fast on a CPU.
    """
    return workarounds and num_queries * num_keys >= CACHED_SCORES and jax.default_backend() == "cpu"


def heads_at_once(batch_size: int, num_heads: int) -> int:
    """Return how many heads attention_per_head multiplies in one product without a gradient: few, and enough of them.

    The gradient is faster with one head at a time.

    Upstream:   no upstream issue filed.
    Effect:     attention of B_16 at 384 in 0.78 of the time at batch 1 and 4, 0.69 to 0.78 in bfloat16; none from a
                batch of 8 on, and none in 0.10.2.
    Remove with attention_per_head.
    """
    if jaxlib.__version__ == AFFECTED_JAXLIB:
        return 1
    divisors = (count for count in range(1, num_heads + 1) if num_heads % count == 0)
    return next((count for count in divisors if batch_size * count >= PRODUCTS_AT_ONCE), num_heads)


def split_last_axis(x: jax.Array, count: int, workarounds: bool = True) -> list[jax.Array]:
    """Split the last axis into `count` equal parts.

    The gradient of jnp.split is one concatenation; that of slices is a sum of padded arrays. OpenVINO's JAX front end
    converts slices, but not the split primitive.

    Upstream:   no upstream issue filed, in either project.
    Effect:     not measured by itself.
    Remove when OpenVINO converts `split`: then call jnp.split always.
    """
    if workarounds:
        return list(jnp.split(x, count, axis=-1))
    size = x.shape[-1] // count
    return [jax.lax.slice_in_dim(x, i * size, (i + 1) * size, axis=-1) for i in range(count)]


def einsum(spec: str, x: jax.Array, y: jax.Array, out_dtype: Any = None) -> jax.Array:
    """Return jnp.einsum(spec, x, y) in `out_dtype` (None: the operands' type), with a fast gradient in bfloat16.

    spec: "...ni,io->...no" (a dense layer), "bnk,bmk->bnm" (scores) or "bnm,bmk->bnk" (weighted values).

    On a CPU the products of a bfloat16 gradient are written so that XLA's library multiplies them: in bfloat16, and
    with two contracted axes where it would otherwise refuse a transposed operand and multiply slowly, in scalars or in
    float32. Forward-mode differentiation is not defined there. Other types and backends: plain jnp.einsum.

    Upstream:   no upstream issue filed.
    Effect:     a bfloat16 step at 224, batch 4, takes 0.76 s instead of 12.1 (docs/performance.md, "bfloat16 on CPUs").
    Remove when the gradient of a bfloat16 product runs at the rate of the product itself.
    """
    if has_slow_gradient(x, y):
        return _einsum_bfloat16(spec, out_dtype, x, y)
    return jnp.einsum(spec, x, y, preferred_element_type=out_dtype)


def add_bias(x: jax.Array, bias: jax.Array) -> jax.Array:
    """Return x + bias along the last axis.

    On a CPU the gradient of a bfloat16 bias is one float32 sum; XLA splits a bfloat16 sum over rows into windows.

    Upstream:   no upstream issue filed.
    Effect:     these sums take about 5 ms of processor time in a block's step instead of 65.
    Remove with einsum().
    """
    return (_add_bias_bfloat16 if has_slow_gradient(x, bias) else _add_bias)(x, bias)


def has_slow_gradient(*arrays: jax.Array) -> bool:
    """Whether XLA multiplies these arrays fast, but not in the gradient: bfloat16 on a CPU.

    Not jaxlib 0.10.2, which is slow in all products of bfloat16 and does not compile every gradient written this way.
    """
    types = {array.dtype.name for array in arrays}
    return types == {"bfloat16"} and jax.default_backend() == "cpu" and jaxlib.__version__ != AFFECTED_JAXLIB


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _einsum_bfloat16(spec: str, out_dtype: Any, x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.einsum(spec, x, y, preferred_element_type=out_dtype)


def _save_operands(spec: str, out_dtype: Any, x: jax.Array, y: jax.Array) -> tuple[jax.Array, Any]:
    return _einsum_bfloat16(spec, out_dtype, x, y), (x, y)


def _multiply_cotangent(spec: str, out_dtype: Any, saved: Any, cotangent: jax.Array) -> tuple[jax.Array, jax.Array]:
    (x, y), (operands, out) = saved, spec.split("->")
    first, second = operands.split(",")
    cotangent = cotangent.astype(x.dtype)
    dx = jnp.einsum(f"{out},{second}->{first}", cotangent, y)
    x = jax.lax.optimization_barrier(x)  # otherwise whatever computes x is fused into its transpose, and slow
    if y.ndim == 2:
        return dx, jnp.einsum(f"{first},{out}->{second}", x, cotangent)
    scores = second[-1] == first[-1]
    return dx, _contract_rows(cotangent, x) if scores else _contract_rows(x, cotangent)


def _contract_rows(x: jax.Array, y: jax.Array) -> jax.Array:
    """Return the sum over n of x[b, n, i] y[b, n, j], [b, i, j]. y is the narrower one, and gets transposed."""
    product = jnp.einsum("bonj,boni->bji", y[:, None], x[:, None])
    return jax.lax.optimization_barrier(product).swapaxes(1, 2)


_einsum_bfloat16.defvjp(_save_operands, _multiply_cotangent)


def _add_bias(x: jax.Array, bias: jax.Array) -> jax.Array:
    return x + bias.reshape((1,) * (x.ndim - 1) + (-1,))


_add_bias_bfloat16 = jax.custom_vjp(_add_bias)
_add_bias_bfloat16.defvjp(
    lambda x, bias: (_add_bias(x, bias), None),
    lambda _, g: (g, g.sum(axis=tuple(range(g.ndim - 1)), dtype=jnp.float32).astype(g.dtype)),
)


def can_truncate_last_block(dtype: jnp.dtype, workarounds: bool = True) -> bool:
    """Whether the last block may compute only the tokens that the head reads: not in bfloat16 on CPUs in 0.10.2.

    XLA's CPU compiler does not emit the bfloat16 gradient of a single token's attention at every optimization level.

    Upstream:   no upstream issue filed; 0.12.0.1 compiles it.
    Effect:     the restriction costs 7 % of B_16's operations; truncating takes 0.93 of the time.
    Remove when jaxlib 0.10.2 is not supported any more.
    """
    affected = jaxlib.__version__ == AFFECTED_JAXLIB and jax.default_backend() == "cpu"
    return not (workarounds and dtype == jnp.bfloat16 and affected)


def compiler_options(*, forward_only: bool = False) -> dict[str, bool | str]:
    """Return options for jax.jit(function, compiler_options=...) that skip passes of XLA which cost time on a CPU.

    cse_barrier_expander, always: it removes barriers before fusion, and with them what materialize() and
    jax.checkpoint ask for. Effect: a step in 0.55 of the time, with 1.15 GB of working memory instead of 2.44.

    tree_reduction_rewriter, in programs without a gradient (forward_only): it turns long sums into windows of 32, which
    are not vectorised. Effect: a forward pass in 0.94 of the time, with no larger error. A step needs the pass, for
    the sums over rows in the gradients of biases (4.5 s with it, 6.6 without).

    Empty for accelerators and for versions of jaxlib other than 0.10.2. On 0.12.0.1 the first changes nothing, and
    without the second a forward pass takes 0.93 of the time at 224, batch 4, but 1.05 and 1.00 at 384, batch 1 and 4.

    Upstream:   no upstream issue filed.
    Remove when neither pass costs time in the supported jaxlib.
    """
    if jaxlib.__version__ != AFFECTED_JAXLIB or jax.default_backend() != "cpu":
        return {}
    return {"xla_disable_hlo_passes": "cse_barrier_expander" + (",tree_reduction_rewriter" if forward_only else "")}


def disable_ynn_fusion(environment: MutableMapping[str, str] | None = None) -> None:
    """Set XLA_FLAGS, unless it is set, so that XLA does not fuse CPU reductions by YNN. Call before jax computes.

    That path is wrong for some shapes, and slower here. Other versions may not know the flag, and XLA ends the
    process for an unknown one. On 0.12.0.1 it changes no time, and the tests pass without it.

    Upstream:   https://github.com/jax-ml/jax/issues/39103 and https://github.com/jax-ml/jax/issues/39257.
    Remove when the supported jaxlib has both fixed.
    """
    environment = os.environ if environment is None else environment
    if jaxlib.__version__ == AFFECTED_JAXLIB:
        environment.setdefault("XLA_FLAGS", "--xla_cpu_experimental_ynn_fusion_type=")


def keep_freed_memory() -> None:
    """Make glibc keep freed memory for the process's next allocation; nothing elsewhere.

    Otherwise the kernel takes gigabytes back after every step on a CPU and clears them again, page by page. One
    arena, since only the first can keep blocks larger than 64 MB.

    Upstream:   no upstream issue filed; XLA's CPU client allocates every temporary by malloc.
    Effect:     page faults of a step fall from 640,000 to none, and 9.3 s to 8.2.
    Remove when XLA's CPU client reuses its buffers.
    """
    libc = ctypes.CDLL(None) if os.name == "posix" else None
    if libc is not None and hasattr(libc, "gnu_get_libc_version"):
        for setting, value in ((M_ARENA_MAX, 1), (M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, -1)):
            libc.mallopt(setting, value)
