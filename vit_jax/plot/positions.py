"""The figure of the similarity of position embeddings."""

from typing import Any

import numpy as np
from jaxtyping import Array, Float

from vit_jax.plot.files import DPI, FONT, TITLE_FONT, new_figure
from vit_jax.plot.text import wrap_title


def _tile_grids(values: Float[Array | np.ndarray, "gh gw gh gw"]) -> Float[np.ndarray, "y x"]:
    """Lay the maps [gh, gw] of all patches out as a grid, separated by lines of NaN."""
    rows, columns = values.shape[:2]
    mosaic = np.full((rows * (rows + 1) - 1, columns * (columns + 1) - 1), np.nan)
    for row, column in np.ndindex(rows, columns):
        top, left = row * (rows + 1), column * (columns + 1)
        mosaic[top : top + rows, left : left + columns] = values[row, column]
    return mosaic


def _label_patches(axes: Any, rows: int, columns: int) -> None:
    """Number the rows and columns of a mosaic of grids at their centres, at most 12 of each."""
    axes.set(xlabel="column of the patch", ylabel="row of the patch")
    for axis, count in ((axes.xaxis, columns), (axes.yaxis, rows)):
        numbers = np.arange(0, count, -(-count // 12))
        axis.set_ticks(numbers * (count + 1) + (count - 1) / 2, [str(number) for number in numbers], fontsize=FONT)
    axes.tick_params(length=2)
    for spine in axes.spines.values():
        spine.set_visible(False)


def plot_position_similarity(similarity: Float[Array | np.ndarray, "gh gw gh gw"], *, title: str = "") -> Any:
    """Draw position similarity as a grid of grids: cell (row, column) is that patch's map over all patches.

    similarity: from position_similarity. The colour scale runs from the lowest similarity to 1.
    """
    values = np.asarray(similarity)
    mosaic = _tile_grids(values)
    dots = max(1, round(5.2 * DPI / max(mosaic.shape)))  # an integer number of dots per value keeps cells sharp
    high, wide = (dots * size / DPI for size in mosaic.shape)
    left, right, bottom, top = 0.6, 1.0, 0.55, 0.45 if title else 0.15  # margins in inches
    figure = new_figure(left + wide + right, bottom + high + top)
    figure.set_layout_engine("none")
    full_width, full_height = figure.get_size_inches()
    axes = figure.add_axes((left / full_width, bottom / full_height, wide / full_width, high / full_height))
    image = axes.imshow(mosaic, cmap="cividis", vmin=np.nanmin(mosaic), vmax=1.0, interpolation="nearest")
    _label_patches(axes, *values.shape[:2])
    bar_place = ((left + wide + 0.15) / full_width, bottom / full_height, 0.15 / full_width, high / full_height)
    bar = figure.colorbar(image, cax=figure.add_axes(bar_place))
    bar.set_label("cosine similarity", fontsize=FONT)
    bar.ax.tick_params(labelsize=FONT)
    if title:
        height = 1 - 0.1 / full_height
        figure.suptitle(
            wrap_title(title, full_width, font=TITLE_FONT), fontsize=TITLE_FONT, y=height, va="top", parse_math=False
        )
    return figure
