"""Figures of what lies inside: maps over their image, and the similarity of position embeddings.

Every function answers a matplotlib Figure at 150 dots an inch, with no global state; save_figure writes it. Colours run
evenly in lightness (inferno, cividis), so that colour-blind readers and grey prints keep the order.
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
WIDEST = 7.0  # inches: two columns of a paper
FONT = 8

Picture = Float[Array | np.ndarray, "h w 3"]
Map = Float[Array | np.ndarray, "gh gw"]


class Panel(NamedTuple):
    """One cell of a figure. heat None shows the image alone; an empty cell is None itself."""

    title: str
    heat: Map | None


def new_figure(width: float, height: float) -> Any:
    """An empty figure, width x height in inches, apart from pyplot's state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Any, path: str | os.PathLike) -> None:
    """Write a figure as PNG, whole or not at all."""
    with atomic_write(path) as beside:
        figure.savefig(beside, format="png")


def _wrapped(text: str, inches: float) -> str:
    """A title in lines that fit a width; class names break after underscores too."""
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
    """Maps over one image, in rows of panels, each map from its own least to its own most.

    image: RGB in [0, 1]. Maps have any size and are enlarged to the image's. alpha: the maps' opacity.
    Raises InputError when there is no panel.
    """
    columns = max((len(row) for row in rows), default=0)
    if not columns:
        raise InputError("no panel to draw")
    height, width = image.shape[:2]
    side = min(2.0, WIDEST / columns)
    lines = [max(1 + _wrapped(p.title, side).count("\n") for p in row if p is not None) for row in rows]
    tall = [side * min(height / width, 2.0) + 0.15 * count + 0.05 for count in lines]
    whole = max(columns * side, 2.5)
    titles = _wrapped(title, whole)
    above = 0.19 * (titles.count("\n") + 1) if titles else 0.0
    figure = new_figure(whole + 0.65 * colour_bar, sum(tall) + above)
    figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03, wspace=0.0, hspace=0.0)
    if titles:
        figure.suptitle(titles, fontsize=FONT + 1, parse_math=False)  # a name with two $ is no formula
    axes = figure.subplots(len(rows), columns, squeeze=False, gridspec_kw={"height_ratios": tall})
    for row, cells in enumerate(axes):
        for column, cell in enumerate(cells):
            panel = rows[row][column] if column < len(rows[row]) else None
            cell.set_axis_off()
            if panel is None:
                continue
            shown = image if panel.heat is None else overlay(image, upsample(panel.heat, (height, width)), alpha)
            cell.imshow(np.asarray(shown).clip(0, 1), interpolation="auto")  # smooth when it shrinks
            cell.set_title(_wrapped(panel.title, side), fontsize=FONT, pad=3, parse_math=False)
    if colour_bar:
        _add_colour_bar(figure, axes)
    return figure


def _add_colour_bar(figure: Any, axes: Any) -> None:
    from matplotlib.cm import ScalarMappable

    bar = figure.colorbar(ScalarMappable(cmap=COLORMAP), ax=axes[0], shrink=0.8, aspect=12, ticks=[0, 1])
    bar.ax.set_yticklabels(["least", "most"], fontsize=FONT)


def arrange_in_rows(panels: Sequence[Panel], most: int = 5) -> list[list[Panel | None]]:
    """Panels in as few rows as hold at most `most` each, as even as can be."""
    columns = -(-len(panels) // -(-len(panels) // most)) if panels else 1
    return [list(panels[start : start + columns]) for start in range(0, len(panels), columns)]


def plot_attention(image: Picture, heat: Map, *, title: str = "", name: str = "[class] attention") -> Any:
    """The image beside one map over it, as for its [class] attention (last layer, mean over heads)."""
    return plot_panels(image, [[Panel("image", None), Panel(name, heat)]], title=title)


def plot_heads(image: Picture, maps: Float[Array | np.ndarray, "heads gh gw"], *, title: str = "") -> Any:
    """The image, and one panel for each head's map."""
    panels = [Panel("image", None), *(Panel(f"head {head}", heat) for head, heat in enumerate(np.asarray(maps)))]
    return plot_panels(image, arrange_in_rows(panels), title=title)


def plot_layers(image: Picture, maps: Float[Array | np.ndarray, "layers gh gw"], *, title: str = "") -> Any:
    """The image, and one panel for each layer's map."""
    panels = [Panel("image", None), *(Panel(f"layer {layer}", heat) for layer, heat in enumerate(np.asarray(maps)))]
    return plot_panels(image, arrange_in_rows(panels), title=title)


def plot_methods(image: Picture, maps: Mapping[str, Map], *, title: str = "") -> Any:
    """The image, and the maps of several methods side by side, by name."""
    panels = [Panel("image", None), *(Panel(name, heat) for name, heat in maps.items())]
    return plot_panels(image, arrange_in_rows(panels), title=title)


def plot_classes(image: Picture, maps: Mapping[str, Map], *, title: str = "") -> Any:
    """The image, and one method's maps for several classes, by the class's name."""
    return plot_methods(image, maps, title=title)


def plot_position_similarity(similarity: Float[Array | np.ndarray, "gh gw gh gw"], *, title: str = "") -> Any:
    """Position similarity as a grid of grids: the cell at (row, column) is that patch's map over all patches.

    similarity: from position_similarity. The colours reach from the least similarity there is to 1.
    """
    values = np.asarray(similarity)
    rows, columns = values.shape[:2]
    mosaic = np.full((rows * (rows + 1) - 1, columns * (columns + 1) - 1), np.nan)
    for row, column in np.ndindex(rows, columns):
        top, left = row * (rows + 1), column * (columns + 1)
        mosaic[top : top + rows, left : left + columns] = values[row, column]
    dots = max(1, round(5.2 * DPI / max(mosaic.shape)))  # whole dots for each value, so that no cell is blurred
    high, wide = (dots * size / DPI for size in mosaic.shape)
    left, right, bottom, top = 0.6, 1.0, 0.55, 0.45 if title else 0.15
    figure = new_figure(left + wide + right, bottom + high + top)
    figure.set_layout_engine("none")
    full_width, full_height = figure.get_size_inches()
    axes = figure.add_axes((left / full_width, bottom / full_height, wide / full_width, high / full_height))
    shown = axes.imshow(mosaic, cmap="cividis", vmin=np.nanmin(mosaic), vmax=1.0, interpolation="nearest")
    axes.set(xlabel="column of the patch", ylabel="row of the patch")
    for axis, count in ((axes.xaxis, columns), (axes.yaxis, rows)):
        numbers = np.arange(0, count, -(-count // 12))
        axis.set_ticks(numbers * (count + 1) + (count - 1) / 2, [str(number) for number in numbers], fontsize=FONT)
    axes.tick_params(length=2)
    for spine in axes.spines.values():
        spine.set_visible(False)
    bar_place = ((left + wide + 0.15) / full_width, bottom / full_height, 0.15 / full_width, high / full_height)
    bar = figure.colorbar(shown, cax=figure.add_axes(bar_place))
    bar.set_label("cosine similarity", fontsize=FONT)
    bar.ax.tick_params(labelsize=FONT)
    if title:
        height = 1 - 0.1 / full_height
        figure.suptitle(_wrapped(title, full_width), fontsize=FONT + 1, y=height, va="top", parse_math=False)
    return figure
