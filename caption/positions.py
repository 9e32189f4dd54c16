"""Sine positions of a grid's cells, as DETR has them (https://arxiv.org/abs/2005.12872).

Letters: B batch, gh x gw grid, D width.
"""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

SCALE = 2 * math.pi  # the last cell with content is at this angle
TEMPERATURE = 10000.0
EPS = 1e-6


def sine_positions(mask: Bool[Array, "b gh gw"], width: int) -> Float[Array, "b gh gw width"]:
    """y's sines and cosines in turn, then x's: width / 2 each. The mask is True where there is content.

    y and x count cells with content from 1, and are scaled so that the last is 2 pi. Always in float32, as the
    reference works them out whatever the model's own type is.
    """
    y = jnp.cumsum(mask, axis=1, dtype=jnp.float32)
    x = jnp.cumsum(mask, axis=2, dtype=jnp.float32)
    y = y / (y[:, -1:, :] + EPS) * SCALE
    x = x / (x[:, :, -1:] + EPS) * SCALE
    return jnp.concatenate([_waves(y, width // 2), _waves(x, width // 2)], axis=-1)


def _waves(angle: Float[Array, "b gh gw"], count: int) -> Float[Array, "b gh gw count"]:
    """sin, cos, sin, cos, ... of an angle at count / 2 frequencies."""
    periods = jnp.asarray(TEMPERATURE ** (2 * np.arange(count // 2) / count), jnp.float32)
    at = angle[..., None] / periods.reshape(1, 1, 1, -1)
    return jnp.stack([jnp.sin(at), jnp.cos(at)], axis=-1).reshape(*angle.shape, count)
