"""Turn patch scores into a picture: grid, upsampling, overlay. Pure functions that accept any leading axes."""

import functools
import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from vit_jax.errors import InputError
from vit_jax.position import RESIZE_METHODS

ROUNDING = 1e-6  # relative: differences of equal float32 scores that are summed in another order
COLORMAP = "inferno"  # monotonic in lightness: readable in greyscale and for colour-blind readers


def to_grid(maps: Float[Array | np.ndarray, "... n"], grid: tuple[int, int]) -> Float[Array, "... gh gw"]:
    """Reshape patch scores [..., n], row-major, to [..., gh, gw]. Raises InputError unless n = gh * gw."""
    if maps.ndim < 1 or maps.shape[-1] != math.prod(grid):
        raise InputError(f"a map of shape {tuple(maps.shape)} does not fit a {grid[0]}x{grid[1]} grid of patches")
    return jnp.asarray(maps).reshape(*maps.shape[:-1], *grid)


def upsample(maps: Shaped[Array | np.ndarray, "..."], size: tuple[int, int]) -> Float[Array, "... h w"]:
    """Upsample maps [..., gh, gw] bilinearly to `size` (height, width) in pixels.

    Agrees with torch's interpolate(mode="bilinear", align_corners=False): values lie at pixel centres.
    Raises InputError for a map with fewer than two axes or a size that is not positive.
    """
    if maps.ndim < 2 or min(size) < 1:
        raise InputError(f"cannot upsample a map of shape {tuple(maps.shape)} to {tuple(size)}")
    maps = jnp.asarray(maps)
    if not jnp.issubdtype(maps.dtype, jnp.inexact):  # the bilinear weights are fractions
        maps = maps.astype(jnp.float32)
    bilinear = RESIZE_METHODS["bilinear"]
    rows = jnp.asarray(bilinear(maps.shape[-2], size[0]), maps.dtype)
    columns = jnp.asarray(bilinear(maps.shape[-1], size[1]), maps.dtype)
    return jnp.einsum("yr,...rc,xc->...yx", rows, maps, columns, precision="highest")


def scale_to_unit_range(heat: Float[Array | np.ndarray, "... h w"]) -> Float[Array, "... h w"]:
    """Scale each map linearly to [0, 1]; a constant map becomes 0."""
    heat = jnp.asarray(heat)
    low = heat.min(axis=(-2, -1), keepdims=True)
    span = heat.max(axis=(-2, -1), keepdims=True) - low
    return jnp.where(span > 0, (heat - low) / jnp.where(span > 0, span, 1), 0)


def uninformative_reason(heat: Float[Array | np.ndarray, "..."]) -> str:
    """Return why one map says nothing about its image: "not finite", "all zero" or "constant"; "" if it does.

    A map is constant if its values differ by no more than float32 rounding, relative to the largest.
    """
    values = np.asarray(heat, np.float64)
    if not np.isfinite(values).all():
        return "not finite"
    largest = np.abs(values).max(initial=0)
    if largest == 0:
        return "all zero"
    return "constant" if np.ptp(values) <= ROUNDING * largest else ""


@functools.cache
def colour_table(name: str) -> np.ndarray:
    """Return a matplotlib colour map as RGB in [0, 1], [256, 3]."""
    from matplotlib import colormaps

    return colormaps[name](np.arange(256))[:, :3].astype(np.float32)


def overlay(
    image: Float[Array | np.ndarray, "... h w 3"], heat: Float[Array | np.ndarray, "... gh gw"], alpha: float = 0.5
) -> Float[Array, "... h w 3"]:
    """Blend a map in colour over its image: (1 - alpha) image + alpha colour, RGB in [0, 1].

    image: RGB in [0, 1]. heat: same size, any range; scaled to [0, 1], its minimum is darkest.
    Raises InputError when the sizes differ or alpha is not in [0, 1].
    """
    if tuple(heat.shape[-2:]) != tuple(image.shape[-3:-1]):
        raise InputError(f"a map of size {tuple(heat.shape[-2:])} does not fit an image of {tuple(image.shape[-3:-1])}")
    if not 0 <= alpha <= 1:
        raise InputError(f"alpha must be in [0, 1], not {alpha}")
    level = jnp.round(255 * scale_to_unit_range(heat)).astype(jnp.int32)
    return (1 - alpha) * jnp.asarray(image) + alpha * jnp.asarray(colour_table(COLORMAP))[level]
