"""Figures: maps over their image, and the similarity of position embeddings.

Every function returns a matplotlib Figure at 150 dpi and leaves pyplot's global state alone; save_figure writes it. The
colour maps (inferno, cividis) are monotonic in lightness: readable in greyscale and for colour-blind readers.
"""

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float

from vit_jax.errors import InputError
from vit_jax.explain.heatmap import COLORMAP, overlay, upsample
from vit_jax.files import atomic_write

DPI = 150
MAX_WIDTH = 7.0  # inches: two columns of a paper
FONT = 8  # points

Picture = Float[Array | np.ndarray, "h w 3"]
Map = Float[Array | np.ndarray, "gh gw"]


class Panel(NamedTuple):
    """A cell of a figure: the image with a map over it, or the image alone if heat is None."""

    title: str
    heat: Map | None


def new_figure(width: float, height: float) -> Any:
    """Return an empty figure, width x height in inches, that pyplot does not know of."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Any, path: str | os.PathLike) -> None:
    """Write a figure as PNG, atomically."""
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png")


def _wrap_title(text: str, inches: float) -> str:
    """Break a title into lines that fit a width, at spaces and after underscores."""
    letters = max(6, int(inches / (0.0085 * FONT)))
    lines = []
    for part in text.split("\n"):
        line = ""
        for word in re.findall(rf"\s+|[^\s_]{{1,{letters - 1}}}_*|_+", part):
            if line and len(line) + len(word.rstrip()) > letters:
                lines.append(line.rstrip())
                line = ""
            line += word if line else word.lstrip()
        lines.append(line.rstrip())
    return "\n".join(lines)


def plot_panels(
    image: Picture,
    rows: Sequence[Sequence[Panel | None]],
    *,
    title: str = "",
    alpha: float = 0.6,
    colour_bar: bool = True,
) -> Any:
    """Draw maps over one image, in rows of panels. Each map is scaled to its own minimum and maximum.

    image: RGB in [0, 1]. Maps of any size are upsampled to the image's. None leaves a cell empty. alpha: opacity of the
    maps. Raises InputError when there is no panel.
    """
    columns = max((len(row) for row in rows), default=0)
    if not columns:
        raise InputError("no panel to draw")
    height, width = image.shape[:2]
    side = min(2.0, MAX_WIDTH / columns)
    lines = [max(1 + _wrap_title(p.title, side).count("\n") for p in row if p is not None) for row in rows]
    row_heights = [side * min(height / width, 2.0) + 0.15 * count + 0.05 for count in lines]
    panels_width = max(columns * side, 2.5)
    suptitle = _wrap_title(title, panels_width)
    suptitle_height = 0.19 * (suptitle.count("\n") + 1) if suptitle else 0.0
    figure = new_figure(panels_width + 0.65 * colour_bar, sum(row_heights) + suptitle_height)
    figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03, wspace=0.0, hspace=0.0)
    if suptitle:
        figure.suptitle(suptitle, fontsize=FONT + 1, parse_math=False)  # a name may contain two $
    axes = figure.subplots(len(rows), columns, squeeze=False, gridspec_kw={"height_ratios": row_heights})
    for row, cells in enumerate(axes):
        for column, cell in enumerate(cells):
            panel = rows[row][column] if column < len(rows[row]) else None
            cell.set_axis_off()
            if panel is not None:
                _draw_panel(cell, image, panel, alpha, _wrap_title(panel.title, side))
    if colour_bar:
        _add_colour_bar(figure, axes)
    return figure


def _draw_panel(axes: Any, image: Picture, panel: Panel, alpha: float, title: str) -> None:
    height, width = image.shape[:2]
    pixels = image if panel.heat is None else overlay(image, upsample(panel.heat, (height, width)), alpha)
    axes.imshow(np.asarray(pixels).clip(0, 1), interpolation="auto")  # antialiased when downsampled
    axes.set_title(title, fontsize=FONT, pad=3, parse_math=False)


def _add_colour_bar(figure: Any, axes: Any) -> None:
    from matplotlib.cm import ScalarMappable

    bar = figure.colorbar(ScalarMappable(cmap=COLORMAP), ax=axes[0], shrink=0.8, aspect=12, ticks=[0, 1])
    bar.ax.set_yticklabels(["least", "most"], fontsize=FONT)


def arrange_in_rows(panels: Sequence[Panel], max_columns: int = 5) -> list[list[Panel | None]]:
    """Split panels into the fewest rows of at most `max_columns`, as evenly as possible."""
    columns = -(-len(panels) // -(-len(panels) // max_columns)) if panels else 1
    return [list(panels[start : start + columns]) for start in range(0, len(panels), columns)]


def plot_attention(image: Picture, heat: Map, *, title: str = "", name: str = "[class] attention") -> Any:
    """Draw the image next to one map over it, such as its [class] attention (last layer, mean over heads)."""
    return plot_panels(image, [[Panel("image", None), Panel(name, heat)]], title=title)


def plot_heads(image: Picture, maps: Float[Array | np.ndarray, "heads gh gw"], *, title: str = "") -> Any:
    """Draw the image, and a panel for the map of each head."""
    panels = [Panel("image", None), *(Panel(f"head {head}", heat) for head, heat in enumerate(np.asarray(maps)))]
    return plot_panels(image, arrange_in_rows(panels), title=title)


def plot_layers(image: Picture, maps: Float[Array | np.ndarray, "layers gh gw"], *, title: str = "") -> Any:
    """Draw the image, and a panel for the map of each layer."""
    panels = [Panel("image", None), *(Panel(f"layer {layer}", heat) for layer, heat in enumerate(np.asarray(maps)))]
    return plot_panels(image, arrange_in_rows(panels), title=title)


def plot_methods(image: Picture, maps: Mapping[str, Map], *, title: str = "") -> Any:
    """Draw the image, and the maps of several methods, by name."""
    panels = [Panel("image", None), *(Panel(name, heat) for name, heat in maps.items())]
    return plot_panels(image, arrange_in_rows(panels), title=title)


def plot_classes(image: Picture, maps: Mapping[str, Map], *, title: str = "") -> Any:
    """Draw the image, and the maps of one method for several classes, by class name."""
    return plot_methods(image, maps, title=title)


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
        figure.suptitle(_wrap_title(title, full_width), fontsize=FONT + 1, y=height, va="top", parse_math=False)
    return figure
