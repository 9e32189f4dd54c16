"""Floating-point operations of a workload, and a large matrix product that shows the rate the machine can reach."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmark.workload import Workload

PRODUCT = 2048  # side of the matrices


def count_flops(workload: Workload) -> float:
    """Return the operations of the matrix products in a forward pass, or three times as many for a training step.

    Where the last block computes only the tokens that are read out, the original computes more.
    """
    config = workload.config
    tokens = config.grid[0] * config.grid[1] + config.num_prefix
    inner = config.heads_width or config.width
    up = config.mlp_dim * (2 if config.activation == "swiglu" else 1)
    weights = 4 * config.width * inner + config.width * (up + config.mlp_dim)
    block = tokens * weights + 2 * tokens * tokens * inner
    if config.num_head_tokens is not None:  # the last block computes only these tokens, but all keys and values
        keys_and_values = 2 * config.width * inner
        last = tokens * keys_and_values + config.num_head_tokens * (weights - keys_and_values + 2 * tokens * inner)
    else:
        last = block
    ph, pw = config.patch_size
    patches = config.grid[0] * config.grid[1] * ph * pw * config.in_channels * config.width
    per_image = (config.depth - 1) * block + last + patches + config.pooled_width * config.num_classes
    return 2.0 * workload.batch_size * per_image * (3 if workload.train else 1)


def build_matrix_product(dtype: str) -> Callable[[], jax.Array]:
    """Build a program that multiplies two PRODUCT x PRODUCT matrices."""
    square = jax.random.normal(jax.random.key(0), (PRODUCT, PRODUCT), jnp.dtype(dtype))
    product = jax.jit(lambda a: a @ a)
    return lambda: product(square)


def matrix_rate(seconds: np.ndarray) -> np.ndarray:
    """Return FLOP/s from the times of the matrix product."""
    return 2 * PRODUCT**3 / seconds
