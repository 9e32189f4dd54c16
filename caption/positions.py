"""Sine positions of a grid's cells, as in DETR (https://arxiv.org/abs/2005.12872).

Letters: B batch, gh x gw grid, D width.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

SCALE = np.float32(2 * math.pi)  # the angle of the last cell with content
TEMPERATURE = 10000.0
EPS = np.float32(1e-6)


def sine_positions(mask: Bool[Array, "b gh gw"], width: int) -> Float[Array, "b gh gw width"]:
    """Return y's interleaved sines and cosines, then x's: width / 2 each. The mask is True on content.

    y and x count cells with content from 1 and are scaled so that the last one is 2 pi. The reference computes them in
    float32 whatever the model's type is, so every step is rounded to float32. Where float64 is enabled it stores the
    numbers: XLA's float32 division is off by one unit in the last place at times.
    """
    y, x = (jnp.cumsum(mask, axis=axis, dtype=jnp.result_type(float)) for axis in (1, 2))
    y = _round_to_float32(_round_to_float32(y / _round_to_float32(y[:, -1:, :] + EPS)) * SCALE)
    x = _round_to_float32(_round_to_float32(x / _round_to_float32(x[:, :, -1:] + EPS)) * SCALE)
    return jnp.concatenate([_interleave_sin_cos(y, width // 2), _interleave_sin_cos(x, width // 2)], axis=-1)


def _round_to_float32(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Round to float32 precision; the type stays."""
    return jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=23)


def _interleave_sin_cos(angle: Float[Array, "b gh gw"], count: int) -> Float[Array, "b gh gw count"]:
    """Return sin, cos, sin, cos, ... of an angle at count / 2 frequencies."""
    periods = (TEMPERATURE ** (2 * np.arange(count // 2) / count)).astype(np.float32)
    scaled = _round_to_float32(angle[..., None] / jnp.asarray(periods, angle.dtype).reshape(1, 1, 1, -1))
    waves = jnp.concatenate([jnp.sin(scaled)[..., None], jnp.cos(scaled)[..., None]], axis=-1)
    return _round_to_float32(waves).reshape(*angle.shape, count)
