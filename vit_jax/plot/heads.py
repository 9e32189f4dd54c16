"""The figure of a number per head: a table of layers and heads in colours."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Array, Float

from vit_jax.errors import InputError
from vit_jax.explain.heatmap import uninformative_reason
from vit_jax.plot.colours import SIGNED_COLOURS, fit_scale
from vit_jax.plot.files import FONT, TITLE_FONT, new_figure
from vit_jax.plot.text import wrap_title

CELL = 0.26  # inches
MIN_WIDTH, MAX_WIDTH, MAX_HEIGHT = 1.8, 5.5, 6.0  # inches, of one table
UNSIGNED_COLOURS = "viridis"


def plot_head_table(
    tables: Sequence[tuple[str, Float[Array | np.ndarray, "layers heads"]]],
    *,
    title: str = "",
    quantity: str = "",
    is_signed: bool = False,
) -> Any:
    """Draw tables of a value per layer (row) and head (column) side by side on one scale.

    tables:    (title, values) of each.
    quantity:  what the values measure, as the label of the colours.
    is_signed: whether they have both signs: red above zero, blue below.
    Raises InputError when there is no table, or one that is not [layers, heads].
    """
    values = [np.asarray(table, np.float64) for _, table in tables]
    for (name, _), table in zip(tables, values, strict=True):
        if table.ndim != 2 or not table.size:
            raise InputError(f"the table {name!r} has the shape {table.shape}, not [layers, heads]")
    if not values:
        raise InputError("no table to draw")
    layers, heads = values[0].shape
    width = min(max(CELL * heads, MIN_WIDTH), MAX_WIDTH)
    height = min(CELL * layers, MAX_HEIGHT)
    total = len(values) * (width + 0.55) + 0.9
    heading = wrap_title(title, total, font=TITLE_FONT) if title else ""
    names = [wrap_title(name, width) for name, _ in tables]
    lines = max(name.count("\n") + 1 for name in names) if any(names) else 0
    figure = new_figure(total, height + 0.55 + 0.15 * lines + (0.19 * (heading.count("\n") + 1) if heading else 0))
    if heading:
        figure.suptitle(heading, fontsize=TITLE_FONT, parse_math=False)
    scale = fit_scale(values, is_signed=is_signed)
    all_axes = figure.subplots(1, len(values), squeeze=False)[0]
    for axes, name, table in zip(all_axes, names, values, strict=True):
        shown = axes.imshow(
            table,
            cmap=SIGNED_COLOURS if is_signed else UNSIGNED_COLOURS,
            vmin=scale.low,
            vmax=scale.high,
            aspect="auto",
            interpolation="nearest",
        )
        _label(axes, name, layers, heads)
        if reason := uninformative_reason(table):
            axes.text(0.5, 0.5, f"{reason}:\nno information", transform=axes.transAxes, ha="center", va="center",
                      fontsize=FONT)  # fmt: skip
    all_axes[0].set_ylabel("layer", fontsize=FONT)
    bar = figure.colorbar(shown, ax=list(all_axes), pad=0.02, aspect=25 * height / 2.4)
    bar.set_label(quantity, fontsize=FONT, parse_math=False)
    bar.ax.tick_params(labelsize=FONT, length=2)
    return figure


def _label(axes: Any, name: str, layers: int, heads: int) -> None:
    axes.set_title(name, fontsize=FONT, pad=3, parse_math=False)
    axes.set_xlabel("head", fontsize=FONT)
    for axis, count in ((axes.yaxis, layers), (axes.xaxis, heads)):
        numbers = list(range(0, count, -(-count // 16)))
        axis.set_ticks(numbers, [str(number) for number in numbers], fontsize=FONT)
    axes.tick_params(length=2)
