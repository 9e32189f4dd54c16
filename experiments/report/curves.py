"""Validation curves of several runs, one panel each, on one scale."""

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.common.plots import BLUE, VERMILION
from vit_jax.files import printable_name
from vit_jax.plot import FONT, new_figure
from vit_jax.train.measure import measure_of

COLUMNS = 3


def plot_runs(runs: Mapping[str, Sequence[dict[str, Any]]]) -> Any:
    """Plot the validation accuracy, or the mAP, by epoch: each run in its own panel, the others in grey.

    runs: name -> the records of metrics.jsonl that close an epoch, all with the same measure.
    """
    columns = min(COLUMNS, len(runs))
    rows = -(-len(runs) // columns)
    figure = new_figure(max(4.0, 2.4 * columns), 1.9 * rows + 0.2)
    panels = list(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat)
    measure = measure_of(next(iter(runs.values()))[0])
    lines = {name: ([r["epoch"] for r in rs], [r[measure.name] for r in rs]) for name, rs in runs.items()}
    for axes, (name, (epochs, values)) in zip(panels, lines.items(), strict=False):
        for other in lines.values():
            axes.plot(*other, color="0.75", linewidth=0.8)
        best = max(range(len(values)), key=values.__getitem__)
        axes.plot(epochs, values, color=BLUE, linewidth=1.5, marker="o" if len(values) < 3 else None, markersize=3)
        axes.plot([epochs[best]], [values[best]], "o", color=VERMILION, markersize=5)
        axes.set_title(f"{printable_name(name)}\n{values[best]:.4f}", fontsize=FONT, parse_math=False)
        axes.grid(alpha=0.3)
        axes.tick_params(labelsize=FONT)
        axes.locator_params(axis="x", integer=True)
    for axes in panels[len(runs) :]:
        axes.set_axis_off()
    figure.supxlabel("epoch", fontsize=FONT + 1)
    figure.supylabel(measure.label, fontsize=FONT + 1)
    return figure
