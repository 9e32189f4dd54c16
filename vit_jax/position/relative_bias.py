"""Relative position bias (BEiT, https://arxiv.org/abs/2106.08254; Swin, https://arxiv.org/abs/2103.14030).

A learned number per head is added to the score of each query and key, by the distance between their patches. A table
for gh x gw patches is [(2 gh - 1) (2 gw - 1) + 3, H]: rows of distances, from query row - key row = -(gh - 1) on, then
three entries for [class]: its queries, its key, and itself.

Letters: N tokens, H heads, gh x gw grid of patches.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from vit_jax.errors import InputError
from vit_jax.position.table import RESIZE_METHODS

Size = tuple[int, int]
CLASS_ENTRIES = 3  # [class] to patch, patch to [class], [class] to itself


def count_distances(grid: Size) -> int:
    """Return the length of the table of a (rows, columns) grid."""
    return (2 * grid[0] - 1) * (2 * grid[1] - 1) + CLASS_ENTRIES


def relative_position_index(grid: Size) -> Int[np.ndarray, "n n"]:
    """Return the table entry of every query (first axis) and key, [class] first: the buffer that files hold."""
    rows, columns = grid
    y, x = (axis.ravel() for axis in np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij"))
    distance_y, distance_x = (axis[:, None] - axis[None, :] for axis in (y, x))
    index = np.zeros((1 + rows * columns,) * 2, np.int64)
    index[1:, 1:] = (distance_y + rows - 1) * (2 * columns - 1) + distance_x + columns - 1
    last = count_distances(grid)
    index[0, :], index[:, 0], index[0, 0] = last - 3, last - 2, last - 1
    return index


def resize_relative_bias(
    table: Float[Array, "t h"], old_grid: Size, new_grid: Size, *, method: str
) -> Float[Array, "u h"]:
    """Resize a table to another (rows, columns) grid; the entries of [class] stay.

    method: one of RESIZE_METHODS, applied to the (2 gh - 1) x (2 gw - 1) distances.

    Raises InputError for a table of another length than old_grid's.
    """
    if len(table) != count_distances(old_grid):
        raise InputError(
            f"a relative position table of {len(table)} entries is not of a {old_grid[0]}x{old_grid[1]} grid"
        )
    if tuple(old_grid) == tuple(new_grid):
        return table
    lengths = [(2 * old - 1, 2 * new - 1) for old, new in zip(old_grid, new_grid, strict=True)]
    distances = table[:-CLASS_ENTRIES].reshape(lengths[0][0], lengths[1][0], -1)
    row_weights, column_weights = (jnp.asarray(RESIZE_METHODS[method](*pair), table.dtype) for pair in lengths)
    resized = jnp.einsum("yr,rch,xc->yxh", row_weights, distances, column_weights, precision=jax.lax.Precision.HIGHEST)
    return jnp.concatenate([resized.reshape(-1, table.shape[1]), table[-CLASS_ENTRIES:]])


@dataclass(frozen=True)
class RelativePositions:
    """The grids between which a model's bias tables are read.

    stored_grid: (rows, columns) of the tables. grid: of the image. method: one of RESIZE_METHODS.
    """

    stored_grid: Size
    grid: Size
    method: str

    def resize(self, table: Float[Array, "t h"]) -> Float[Array, "u h"]:
        """Return a table of the stored grid as one of the image's grid."""
        return resize_relative_bias(table, self.stored_grid, self.grid, method=self.method)

    def bias(self, table: Float[Array, "t h"]) -> Float[Array, "1 h n n"]:
        """Return the bias of every query (first N) and key, from a table of the stored grid."""
        table = self.resize(table)
        rows, columns = self.grid
        heads = table.shape[1]
        distances = table[:-CLASS_ENTRIES].T.reshape(heads, 2 * rows - 1, 2 * columns - 1)
        by_rows = _take(distances, _distances(rows), axis=1)  # [H, gh * gh, 2 gw - 1]
        patches = _take(by_rows, _distances(columns), axis=2).reshape(heads, rows, rows, columns, columns)
        patches = patches.transpose(0, 1, 3, 2, 4).reshape(heads, rows * columns, rows * columns)
        query, key, itself = (entry.reshape(heads, 1, 1) for entry in table[-CLASS_ENTRIES:])
        top = jnp.concatenate([itself, jnp.broadcast_to(query, (heads, 1, rows * columns))], axis=2)
        left = jnp.broadcast_to(key, (heads, rows * columns, 1))
        return jnp.concatenate([top, jnp.concatenate([left, patches], axis=2)], axis=1)[None]


def _distances(length: int) -> Int[np.ndarray, " i"]:
    """Return query - key + length - 1 of every two indices."""
    return (np.arange(length)[:, None] - np.arange(length) + length - 1).ravel()


def _take(x: jax.Array, indices: Int[np.ndarray, " i"], axis: int) -> jax.Array:
    """Return x at constant indices along an axis. Written out: jnp.take is a nested jit, unknown to OpenVINO."""
    others = tuple(other for other in range(x.ndim) if other != axis)
    numbers = jax.lax.GatherDimensionNumbers(offset_dims=others, collapsed_slice_dims=(axis,), start_index_map=(axis,))
    sizes = tuple(1 if other == axis else size for other, size in enumerate(x.shape))
    return jax.lax.gather(
        x, jnp.asarray(indices)[:, None], numbers, sizes, mode=jax.lax.GatherScatterMode.PROMISE_IN_BOUNDS
    )
