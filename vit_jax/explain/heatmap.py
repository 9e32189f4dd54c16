"""From a score for each patch to a picture: grid, enlargement, overlay. Pure, and any leading axes will do."""

import functools
import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vit_jax.errors import InputError
from vit_jax.position import RESIZE_METHODS

COLORMAP = "inferno"  # even in lightness, so that colour-blind readers and grey prints keep the order


def to_grid(maps: Float[Array | np.ndarray, "... n"], grid: tuple[int, int]) -> Float[Array, "... gh gw"]:
    """Scores of patches in row order as (rows, columns). Raises InputError when they are not rows * columns."""
    if maps.ndim < 1 or maps.shape[-1] != math.prod(grid):
        raise InputError(f"a map of shape {tuple(maps.shape)} does not fit a {grid[0]}x{grid[1]} grid of patches")
    return jnp.asarray(maps).reshape(*maps.shape[:-1], *grid)


def upsample(maps: Float[Array | np.ndarray, "..."], size: tuple[int, int]) -> Float[Array, "... h w"]:
    """Maps [..., gh, gw] enlarged bilinearly to `size` (height, width) in pixels, as torch does by default.

    (align_corners=False: values stand at the centres of pixels.)

    Raises InputError for a map without two sides or a size that is not positive.
    """
    if maps.ndim < 2 or min(size) < 1:
        raise InputError(f"can't enlarge a map of shape {tuple(maps.shape)} to {tuple(size)}")
    maps = jnp.asarray(maps)
    bilinear = RESIZE_METHODS["bilinear"]
    rows = jnp.asarray(bilinear(maps.shape[-2], size[0]), maps.dtype)
    columns = jnp.asarray(bilinear(maps.shape[-1], size[1]), maps.dtype)
    return jnp.einsum("yr,...rc,xc->...yx", rows, maps, columns, precision="highest")


def unit_range(heat: Float[Array | np.ndarray, "... h w"]) -> Float[Array, "... h w"]:
    """Each map moved and scaled to [0, 1]; one that is the same everywhere becomes 0."""
    heat = jnp.asarray(heat)
    least = heat.min(axis=(-2, -1), keepdims=True)
    span = heat.max(axis=(-2, -1), keepdims=True) - least
    return jnp.where(span > 0, (heat - least) / jnp.where(span > 0, span, 1), 0)


@functools.cache
def _colours(name: str) -> np.ndarray:
    from matplotlib import colormaps

    return colormaps[name](np.arange(256))[:, :3].astype(np.float32)


def overlay(
    image: Float[Array | np.ndarray, "... h w 3"], heat: Float[Array | np.ndarray, "... gh gw"], alpha: float = 0.5
) -> Float[Array, "... h w 3"]:
    """A map in colour over its image: (1 - alpha) image + alpha colour, RGB in [0, 1].

    image: RGB in [0, 1]. heat: at the image's size, any range; its least value is darkest (see unit_range).
    Raises InputError when the two do not have the same size or alpha is not in [0, 1].
    """
    if tuple(heat.shape[-2:]) != tuple(image.shape[-3:-1]):
        raise InputError(f"a map of size {tuple(heat.shape[-2:])} does not fit an image of {tuple(image.shape[-3:-1])}")
    if not 0 <= alpha <= 1:
        raise InputError(f"alpha is in [0, 1], not {alpha}")
    level = jnp.round(255 * unit_range(heat)).astype(jnp.int32)
    return (1 - alpha) * jnp.asarray(image) + alpha * jnp.asarray(_colours(COLORMAP))[level]
