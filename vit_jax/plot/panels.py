"""A picture and maps over it, in rows of panels."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float

from vit_jax.errors import InputError
from vit_jax.explain.heatmap import uninformative_reason, upsample
from vit_jax.plot.colour_bar import BAR_HEIGHT, ColourBar, draw_colour_bar, list_colour_bars
from vit_jax.plot.colours import ALPHA, HeatScale, Map, blend_heat, fit_scale
from vit_jax.plot.files import FONT, SCALES, TITLE_FONT, new_figure
from vit_jax.plot.picture import shrink_picture
from vit_jax.plot.text import wrap_title

MAX_WIDTH = 7.0  # inches: two columns of a paper
MAX_SIDE = 2.0  # inches: width of a panel


Colours = Float[Array | np.ndarray, "gh gw 3"]


class Panel(NamedTuple):
    """A cell of a figure: the image with a map over it, or the image alone if heat is None.

    heat:      scores [gh, gw], or colours [gh, gw, 3] in [0, 1], which are drawn in place of the image
    quantity:  what the map measures, as the label of its colours; maps of one quantity can share a scale
    is_signed: whether the map has values of both signs, drawn in two hues with a transparent zero
    marks:     (row, column) of the map's patches to outline
    """

    title: str
    heat: Map | Colours | None
    quantity: str = ""
    is_signed: bool = False
    marks: Sequence[tuple[int, int]] = ()

    @property
    def is_colour(self) -> bool:
        """Whether the map holds colours, which have no scale."""
        return self.heat is not None and np.ndim(self.heat) == 3 and self.heat.shape[-1] == 3


class _Layout(NamedTuple):
    """Sizes, in inches, of the panels of a figure, and its wrapped title."""

    side: float
    row_heights: list[float]
    width: float
    title: str

    @property
    def height(self) -> float:
        return sum(self.row_heights) + (0.19 * (self.title.count("\n") + 1) if self.title else 0.0)


def plot_panels(
    image: Any,
    rows: Sequence[Sequence[Panel | None]],
    *,
    title: str = "",
    alpha: float = ALPHA,
    colour_bar: bool = True,
    scale: str = "own",
) -> Any:
    """Draw maps over one image, in rows of panels. Maps of any size are upsampled to the image's.

    image: see as_pixels. None leaves a cell empty. alpha: of the colours where the heat is greatest.
    scale: "own" fits the colours to the values of each map, "shared" to those of all maps of its quantity.
    A map without information (see uninformative_reason) leaves the image as it is, and a text says why.
    Raises InputError when there is no panel, for an unknown scale, for a map that is not [gh, gw], and as as_pixels.
    """
    columns = max((len(row) for row in rows), default=0)
    cells = [cell for row in rows for cell in (*row, *[None] * (columns - len(row)))]
    panels = [panel for panel in cells if panel is not None]
    if not panels:
        raise InputError("no panel to draw")
    pixels = shrink_picture(image)
    scales = _fit_scales(panels, scale)
    layout = _lay_out(rows, columns, pixels.shape[0] / pixels.shape[1], title)
    bars = _list_bars(panels, scales, scale) if colour_bar else []
    figure = new_figure(layout.width, layout.height + BAR_HEIGHT * len(bars))
    figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03, wspace=0.0, hspace=0.0)
    if layout.title:
        figure.suptitle(layout.title, fontsize=TITLE_FONT, parse_math=False)  # a name may contain two $
    axes = figure.subplots(len(rows), columns, squeeze=False, gridspec_kw={"height_ratios": layout.row_heights})
    remaining = iter(scales)
    for cell, panel in zip(axes.flat, cells, strict=True):
        cell.set_axis_off()
        if panel is not None:
            _draw_panel(cell, pixels, panel, next(remaining), alpha, layout.side)
    for bar in reversed(bars):  # the last one drawn is the closest to the panels
        draw_colour_bar(figure, axes, bar, (layout.width, layout.height), alpha)
    return figure


def _lay_out(rows: Sequence[Sequence[Panel | None]], columns: int, aspect: float, title: str) -> _Layout:
    """Choose the sizes for panels of one image. aspect: its height over its width."""
    side = min(MAX_SIDE, MAX_WIDTH / columns)
    lines = [max((_count_lines(p.title, side) for p in row if p is not None), default=1) for row in rows]
    row_heights = [side * min(aspect, 2.0) + 0.15 * count + 0.05 for count in lines]
    width = max(columns * side, 2.5)
    return _Layout(side, row_heights, width, wrap_title(title, width, font=TITLE_FONT))


def _count_lines(title: str, width: float) -> int:
    return 1 + wrap_title(title, width).count("\n")


def _fit_scales(panels: Sequence[Panel], scale: str) -> list[HeatScale | None]:
    """Return the scale of each panel's map, None for an image alone and for a map without information."""
    if scale not in SCALES:
        raise InputError(f"no scale {scale!r}: one of {', '.join(SCALES)}")
    groups: dict[Any, list[Map]] = {}
    keys: list[Any] = []
    for number, panel in enumerate(panels):
        heat = panel.heat
        if heat is not None and np.ndim(heat) != 2 and not panel.is_colour:
            raise InputError(f"the map {panel.title!r} has the shape {np.shape(heat)}, not [rows, columns]")
        is_drawn = heat is not None and not panel.is_colour and not uninformative_reason(heat)
        keys.append(None if not is_drawn else (panel.quantity, panel.is_signed, number if scale == "own" else 0))
        if heat is not None and is_drawn:
            groups.setdefault(keys[-1], []).append(heat)
    fitted = {key: fit_scale(maps, is_signed=key[1]) for key, maps in groups.items()}
    return [fitted.get(key) for key in keys]


def _list_bars(panels: Sequence[Panel], scales: Sequence[HeatScale | None], scale: str) -> list[ColourBar]:
    maps = [(panel.quantity, fitted) for panel, fitted in zip(panels, scales, strict=True) if fitted is not None]
    return list_colour_bars(maps, several=f"each {'map' if scale == 'own' else 'method'} on its own scale")


def _draw_panel(
    axes: Any, image: np.ndarray, panel: Panel, scale: HeatScale | None, alpha: float, width: float
) -> None:
    """Draw a map over its image; the image alone without a scale, with the reason as text if there is a map."""
    pixels = image
    reason = "" if panel.heat is None else uninformative_reason(panel.heat)
    if panel.heat is not None and panel.is_colour and not reason:
        pixels = _upsample_colours(panel.heat, image.shape[:2])
    elif panel.heat is not None and scale is not None:
        pixels = blend_heat(image, np.asarray(upsample(panel.heat, image.shape[:2])), scale, alpha)
    elif reason:
        style: dict[str, Any] = dict(ha="center", va="center", fontsize=FONT, color="black", parse_math=False)
        box = dict(boxstyle="round", facecolor="white", edgecolor="none", alpha=0.8)
        text = f"{reason}:\nno information"
        axes.text(0.5, 0.5, text, transform=axes.transAxes, bbox=box, **style)
    axes.imshow(pixels.clip(0, 1), interpolation="auto")  # antialiased when downsampled
    axes.set_title(wrap_title(panel.title, width), fontsize=FONT, pad=3, parse_math=False)
    if panel.heat is not None:
        rows, columns = panel.heat.shape[:2]
        _outline_patches(axes, panel.marks, (image.shape[0] / rows, image.shape[1] / columns))


def _upsample_colours(colours: Colours, size: tuple[int, int]) -> np.ndarray:
    """Return colours [gh, gw, 3] at a size in pixels, [h, w, 3]."""
    return np.moveaxis(np.asarray(upsample(np.moveaxis(np.asarray(colours), -1, 0), size)), 0, -1)


def _outline_patches(axes: Any, patches: Sequence[tuple[int, int]], size: tuple[float, float]) -> None:
    """Outline patches (row, column) of a size in pixels, in white on black, visible on every colour."""
    from matplotlib.patches import Rectangle

    height, width = size
    for row, column in patches:
        for colour, line in (("black", 2.5), ("white", 1.0)):
            corner = (column * width - 0.5, row * height - 0.5)
            axes.add_patch(Rectangle(corner, width, height, fill=False, edgecolor=colour, linewidth=line))


def arrange_in_rows(panels: Sequence[Panel], max_columns: int = 5) -> list[list[Panel | None]]:
    """Split panels into rows of at most `max_columns`; only the last row may be shorter.

    Of the lengths from half of max_columns on, with at most one row more than columns, the one that leaves the fewest
    cells empty is chosen; then the longest.
    """
    count = len(panels)
    if count <= max_columns:
        return [list(panels)] if panels else []
    lengths = [n for n in range(max_columns, -(-max_columns // 2) - 1, -1) if n == max_columns or count <= n * (n + 1)]
    columns = min(lengths, key=lambda length: -count % length)
    return [list(panels[start : start + columns]) for start in range(0, count, columns)]
