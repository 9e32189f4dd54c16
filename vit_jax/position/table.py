"""Resize position embeddings in the convention that a checkpoint declares, and compare them.

Seven conventions are in use. They differ by up to 0.3 on unit-normal tables, so a checkpoint names its own. All are
separable: out = rows @ grid @ columns^T with one weight matrix [new, old] per axis.

    zoom               scipy.ndimage.zoom(order=1) = torch bilinear, align_corners=True (PyTorch-Pretrained-ViT)
    bilinear           torch bilinear, align_corners=False, no antialias
    bilinear_antialias TIPSv2, SigLIP 2 NaFlex: the same with antialias=True = jax.image.resize "linear"
    bicubic_antialias  timm: torch bicubic, antialias=True (Keys' a = -0.5) = jax.image.resize "cubic"
    bicubic            Hugging Face: torch bicubic, no antialias (a = -0.75, borders repeated)
    bicubic_offset     facebookresearch's DINO, and DINOv2 without registers: bicubic by the factor (new + 0.1) / old
    geometric          BEiT's relative position bias in timm: linear between samples whose gaps grow geometrically from
                       the centre, so that near distances keep their resolution
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vit_jax.errors import InputError
from vit_jax.suggest import describe_unknown


def _linear(distance: np.ndarray) -> np.ndarray:
    return np.maximum(0.0, 1.0 - np.abs(distance))


def _cubic(a: float) -> Callable[[np.ndarray], np.ndarray]:
    """Return Keys' cubic convolution kernel (IEEE ASSP 29(6), 1981) with support [-2, 2]."""

    def kernel(distance: np.ndarray) -> np.ndarray:
        x = np.abs(distance)
        near = ((a + 2) * x - (a + 3)) * x * x + 1
        far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
        return np.where(x <= 1, near, np.where(x < 2, far, 0.0))

    return kernel


def _interpolation(position: np.ndarray, old: int, kernel: Callable, reach: int) -> np.ndarray:
    """Return the weights [new, old] of the samples around each position; the border sample is repeated outside."""
    weights = np.zeros((len(position), old))
    first = np.floor(position).astype(int) - reach + 1
    for sample in (first + k for k in range(2 * reach)):
        np.add.at(weights, (np.arange(len(position)), sample.clip(0, old - 1)), kernel(position - sample))
    return weights


def _zoom(old: int, new: int) -> np.ndarray:
    return _interpolation(np.linspace(0, old - 1, new), old, _linear, reach=1)


def _centres(old: int, new: int) -> np.ndarray:
    """Return the centres of the new samples in old coordinates, with half-pixel offsets."""
    return (np.arange(new) + 0.5) * (old / new) - 0.5


def _bilinear(old: int, new: int) -> np.ndarray:
    return _interpolation(_centres(old, new), old, _linear, reach=1)


def _bicubic(old: int, new: int) -> np.ndarray:
    return _interpolation(_centres(old, new), old, _cubic(-0.75), reach=2)


def _bicubic_offset(old: int, new: int) -> np.ndarray:
    """Return bicubic weights whose sample distance is that of a new axis longer by 0.1. Source: DINOv2's
    interpolate_pos_encoding, where the offset guards a division against rounding and shifts the samples.
    """
    return _interpolation((np.arange(new) + 0.5) * (old / (new + 0.1)) - 0.5, old, _cubic(-0.75), reach=2)


def _antialias(kernel: Callable[[np.ndarray], np.ndarray]) -> Callable[[int, int], np.ndarray]:
    """Return the weights of a kernel that widens when the grid shrinks; samples outside the border are excluded."""

    def weights(old: int, new: int) -> np.ndarray:
        stretch = max(old / new, 1.0)
        values = kernel((_centres(old, new)[:, None] - np.arange(old)) / stretch)
        return values / values.sum(axis=1, keepdims=True)

    return weights


def _geometric(old: int, new: int) -> np.ndarray:
    """Return the weights of linear interpolation where sample i of the old axis is i steps from its centre, the first
    of 1 and each longer by a factor q, so that they reach the new border. Source: resize_rel_pos_bias_table of timm.
    """
    if old % 2 == 0 or new % 2 == 0:
        raise InputError(f"resizing by 'geometric' needs distances, an odd number, not {old} and {new}")
    low, high = 1.01, 1.5
    while high - low > 1e-6:  # as the original, whose result depends on where the bisection stops
        q = (low + high) / 2
        low, high = (low, q) if (1 - q ** (old // 2)) / (1 - q) > new // 2 else (q, high)
    reach = np.cumsum(q ** np.arange(old // 2))
    samples = np.concatenate([-reach[::-1], [0.0], reach])
    positions = np.arange(new) - new // 2
    return np.stack([np.interp(positions, samples, one) for one in np.eye(old)], axis=1)


RESIZE_METHODS: dict[str, Callable[[int, int], np.ndarray]] = {
    "zoom": _zoom,
    "bilinear": _bilinear,
    "bilinear_antialias": _antialias(_linear),
    "bicubic_antialias": _antialias(_cubic(-0.5)),
    "bicubic": _bicubic,
    "bicubic_offset": _bicubic_offset,
    "geometric": _geometric,
}


def _check_table(table: Float[Array, "1 n d"], grid: tuple[int, int], num_prefix: int) -> None:
    if table.shape[1] != num_prefix + grid[0] * grid[1]:
        raise InputError(
            f"a position table of {table.shape[1]} tokens is not {num_prefix} prefix tokens"
            f" and a {grid[0]}x{grid[1]} grid"
        )


def resize_position_embedding(
    table: Float[Array, "1 n d"],
    old_grid: tuple[int, int],
    new_grid: tuple[int, int],
    *,
    num_prefix: int,
    method: str,
) -> Float[Array, "1 m d"]:
    """Resize the patch part of a position table [1, num_prefix + rows * columns, D] to another grid.

    num_prefix: number of leading positions ([class], registers), which do not change.
    method:     one of RESIZE_METHODS. Grids are (rows, columns).

    Raises InputError for an unknown method, or a table of another length than old_grid's.
    """
    if method not in RESIZE_METHODS:
        raise InputError(describe_unknown("resize method", method, RESIZE_METHODS))
    rows, columns = old_grid
    _check_table(table, old_grid, num_prefix)
    if tuple(old_grid) == tuple(new_grid):
        return table
    prefix, patches = table[:, :num_prefix], table[:, num_prefix:]
    grid = patches.reshape(rows, columns, -1)
    row_weights = jnp.asarray(RESIZE_METHODS[method](rows, new_grid[0]), table.dtype)
    column_weights = jnp.asarray(RESIZE_METHODS[method](columns, new_grid[1]), table.dtype)
    grid = jnp.einsum("yr,rcd,xc->yxd", row_weights, grid, column_weights, precision=jax.lax.Precision.HIGHEST)
    return jnp.concatenate([prefix, grid.reshape(1, new_grid[0] * new_grid[1], -1)], axis=1)


def similarity(table: Float[Array, "1 n d"], grid: tuple[int, int], *, num_prefix: int) -> Float[Array, "gh gw gh gw"]:
    """Return the cosine similarity, in [-1, 1], of the position embeddings of every two patches.

    [i, j] is the map of patch (i, j) over the grid. Source: figure 7 of Dosovitskiy et al., arXiv 2010.11929.
    Raises InputError for a table of another length than the grid's.
    """
    _check_table(table, grid, num_prefix)
    patches = table[0, num_prefix:]
    unit = patches / jnp.maximum(jnp.linalg.norm(patches, axis=-1, keepdims=True), jnp.finfo(table.dtype).tiny)
    return jnp.matmul(unit, unit.T, precision=jax.lax.Precision.HIGHEST).reshape(*grid, *grid)
