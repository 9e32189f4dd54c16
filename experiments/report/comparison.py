"""The chart that compares the best results of runs, with their confidence intervals."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from experiments.common.plots import BLUE
from vit_jax.files import printable_name
from vit_jax.plot import FONT, new_figure
from vit_jax.plot.text import wrap_title

NAME_WIDTH = 2.6  # inches
ROW = 0.34  # inches


class Score(NamedTuple):
    """A run's name and best value; interval: its lower and upper end, None if unknown."""

    name: str
    value: float
    interval: tuple[float, float] | None


def plot_comparison(scores: Sequence[Score], label: str) -> Any:
    """Plot a row for each run, best first: its value as a dot and in figures, and its interval as a line."""
    best_first = sorted(scores, key=lambda score: -score.value)
    names = [wrap_title(printable_name(score.name), NAME_WIDTH) for score in best_first]
    lines = sum(1 + name.count("\n") for name in names)
    figure = new_figure(7.0, 0.6 + ROW * max(len(names), 0.5 * lines + 1))
    axes = figure.subplots()
    for row, score in enumerate(best_first):
        low, high = score.interval or (score.value, score.value)
        axes.plot([low, high], [row, row], color=BLUE, linewidth=2, alpha=0.5, solid_capstyle="butt")
        axes.plot([score.value], [row], "o", color=BLUE, markersize=5)
        axes.annotate(f"{score.value:.3f}", (1.01, row), xycoords=("axes fraction", "data"), va="center", fontsize=FONT)
    axes.set_yticks(range(len(names)), names, fontsize=FONT, parse_math=False)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.margins(x=0.08)
    axes.set_xlabel(label, fontsize=FONT + 1)
    axes.tick_params(labelsize=FONT, length=2)
    axes.grid(axis="x", alpha=0.3)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    return figure
