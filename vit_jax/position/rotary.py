"""Axial rotary positions: RoPE (https://arxiv.org/abs/2104.09864) over the rows and columns of a grid of patches.

Pairs of a query's and a key's components are rotated by angles that grow with the patch's coordinates, so that their
product depends on the distance between the patches. Of the K / 2 pairs of a head, the first half turns with one axis,
the second half with the other; within an axis, pair j turns once per period[j]. Conventions, by family:

    DINOv3               layout half, coordinates centred, temperature 100
    EVA-02               layout interleaved, coordinates index, scaled to the grid of pretraining, temperature 10000
    Perception Encoder   as EVA-02 on its own grid, from 1 instead of 0, columns before rows
    timm's RoPE-ViT      layout interleaved, coordinates index, columns before rows, temperature 100

The angles are exact: computed in float64 and rounded once, as sines and cosines. Prefix tokens are not rotated.

Letters: B batch, N tokens, H heads, K size of a head, P = K / 4 periods, Q = K / 2 pairs.
"""

import math
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vit_jax.errors import InputError
from vit_jax.suggest import describe_unknown

CHOICES = {
    "layout": ("half", "interleaved"),
    "coordinates": ("centred", "index"),
    "axes": ("yx", "xy"),
}
Size = tuple[int, int]


@dataclass(frozen=True)
class Rotary:
    """How a model rotates queries and keys. The defaults are DINOv3's.

    layout:         which components form pair j of K / 2: "half" j and j + K / 2, "interleaved" 2 j and 2 j + 1.
    temperature:    period[j] = temperature ** (4 j / K) for j < K / 4, unless the periods are given.
    periods:        as a file stores them, K / 4 positive numbers; () for the formula.
    coordinates:    "centred": 2 (i + 0.5) / n - 1 of row or column i of n, in [-1, 1], and angle 2 pi c / period;
                    "index": i + offset, and angle c / period.
    offset:         of the first row and column, for "index".
    reference_grid: (rows, columns) that every grid is scaled to, as (i + offset) / n * reference; None: not scaled.
    axes:           which axis the first K / 4 pairs turn with: "yx" the rows, "xy" the columns.

    Raises InputError for values that are out of range or have no effect.
    """

    layout: str = "half"
    temperature: float = 100.0
    periods: tuple[float, ...] = ()
    coordinates: str = "centred"
    offset: float = 0.0
    reference_grid: Size | None = None
    axes: str = "yx"

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise InputError(describe_unknown(f"rotary {name}", getattr(self, name), choices))
        if not (math.isfinite(self.temperature) and self.temperature > 1):
            raise InputError(f"rotary temperature must be above 1, not {self.temperature}")
        if not all(math.isfinite(period) and period > 0 for period in self.periods):
            raise InputError("rotary periods must be positive numbers")
        if self.coordinates == "centred" and (self.offset or self.reference_grid):
            raise InputError("rotary offset and reference_grid need coordinates='index'")
        if self.reference_grid is not None and min(self.reference_grid) < 1:
            raise InputError(f"rotary reference_grid must be at least 1x1, not {self.reference_grid}")

    def __str__(self) -> str:
        periods = (
            f"{len(self.periods)} stored periods" if self.periods else f"periods {self.temperature:g} ** (4 j / K)"
        )
        scaled = "" if self.reference_grid is None else f" scaled to {self.reference_grid[0]}x{self.reference_grid[1]}"
        first = f" from {self.offset:g}" if self.offset else ""
        return f"({self.layout}, {self.coordinates}{first}{scaled}, {self.axes}, {periods})"

    def check_head_size(self, head_size: int) -> None:
        """Raise InputError unless heads of this size can be rotated."""
        if head_size % 4:
            raise InputError(f"rotary positions need heads of a multiple of 4, not of {head_size}")
        if self.periods and len(self.periods) != head_size // 4:
            raise InputError(f"{len(self.periods)} rotary periods, and heads of {head_size} need {head_size // 4}")

    def periods_for(self, head_size: int) -> Float[np.ndarray, " p"]:
        """Return the period of each pair of an axis, the stored ones or those of the formula."""
        if self.periods:
            return np.asarray(self.periods, np.float64)
        return self.temperature ** (4 * np.arange(head_size // 4) / head_size)

    def angles(self, grid: Size, head_size: int) -> Float[np.ndarray, "n q"]:
        """Return the angle of every pair of every patch of a (rows, columns) grid, in row order, in float64."""
        rows, columns = (self._coordinates(axis, grid) for axis in (0, 1))
        y, x = (axis.ravel() for axis in np.meshgrid(rows, columns, indexing="ij"))
        periods = self.periods_for(head_size)
        first, second = (y, x) if self.axes == "yx" else (x, y)
        return np.concatenate([first[:, None] / periods, second[:, None] / periods], axis=1)

    def _coordinates(self, axis: int, grid: Size) -> np.ndarray:
        index, length = np.arange(grid[axis], dtype=np.float64), grid[axis]
        if self.coordinates == "centred":
            return 2 * np.pi * (2 * (index + 0.5) / length - 1)
        index = index + self.offset
        return index if self.reference_grid is None else index / length * self.reference_grid[axis]


@dataclass(frozen=True)
class Rotation:
    """The rotation of each of N tokens: x cos + swap(x) sin, where swap exchanges the two components of each pair.

    cos, sin: [N, K]. sin has the sign of the component's side: the first of a pair gets -sin, the second +sin.
    layout:   of Rotary.
    """

    cos: Float[Array, "n k"]
    sin: Float[Array, "n k"]
    layout: str

    def __getitem__(self, tokens: slice) -> "Rotation":
        return Rotation(self.cos[tokens], self.sin[tokens], self.layout)

    def __call__(self, x: Float[Array, "b n h k"]) -> Float[Array, "b n h k"]:
        """Return x rotated, computed in float32 at least."""
        exact = x.astype(self.cos.dtype)
        rotated = exact * self.cos[None, :, None] + _swap(exact, self.layout) * self.sin[None, :, None]
        return rotated.astype(x.dtype)


def _swap(x: Float[Array, "b n h k"], layout: str) -> Float[Array, "b n h k"]:
    """Exchange the two components of each pair."""
    if layout == "half":
        middle = x.shape[-1] // 2
        return jnp.concatenate([x[..., middle:], x[..., :middle]], axis=-1)
    pairs = x.reshape(*x.shape[:-1], -1, 2)
    return jnp.concatenate([pairs[..., 1:], pairs[..., :1]], axis=-1).reshape(x.shape)


def make_rotation(rotary: Rotary, grid: Size, head_size: int, num_prefix: int, dtype: Any) -> Rotation:
    """Return the rotation of num_prefix tokens, which stay as they are, and of a grid's patches.

    dtype: of the queries and keys; the tables are float32 at least.
    """
    angles = np.pad(rotary.angles(grid, head_size), [(num_prefix, 0), (0, 0)])
    pairs = np.cos(angles), np.sin(angles)
    if rotary.layout == "half":
        tables = np.tile(pairs[0], 2), np.concatenate([-pairs[1], pairs[1]], axis=1)
    else:
        tables = np.repeat(pairs[0], 2, axis=1), np.stack([-pairs[1], pairs[1]], axis=2).reshape(len(angles), -1)
    dtype = jnp.promote_types(dtype, jnp.float32)
    cos, sin = (jnp.asarray(table, dtype) for table in tables)
    return Rotation(cos, sin, rotary.layout)
