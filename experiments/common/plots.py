"""Figures of a run: training curves and the confusion matrix."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vit_jax.files import printable_name
from vit_jax.plot import DPI, new_figure, save_figure

BLUE, VERMILION, GREEN = "#0072B2", "#D55E00", "#009E73"  # of Okabe and Ito's colour-blind safe palette
MAX_NAME = 32  # characters of a class name next to a matrix
MAX_NAMED_CLASSES, MAX_COUNTED_CLASSES = 60, 40  # above these a matrix has no names, or no counts in its cells


def plot_curves(
    records: Sequence[dict[str, Any]],
    path: Path,
    *,
    title: str,
    measure: str = "val_accuracy",
    label: str = "validation accuracy",
    lowest: bool = False,
) -> None:
    """Plot training loss and a validation measure by epoch, side by side, and mark the best epoch.

    lowest: the best epoch has the lowest measure, not the highest.
    """
    epochs = [record["epoch"] for record in records]
    values = [record[measure] for record in records]
    best = int(np.argmin(values) if lowest else np.argmax(values))
    figure = new_figure(8.0, 3.2)
    figure.suptitle(printable_name(title), fontsize=10, parse_math=False)
    left, right = figure.subplots(1, 2)
    marker = "o" if len(epochs) < 30 else None
    left.plot(epochs, [r["train_loss"] for r in records], color=BLUE, marker=marker, markersize=3)
    left.set(xlabel="epoch", ylabel="training loss (nats)")
    left.set_ylim(bottom=0)
    right.plot(epochs, values, color=BLUE, marker=marker, markersize=3)
    right.plot([epochs[best]], [values[best]], "o", color=VERMILION, markersize=6)
    right.set(xlabel="epoch", ylabel=label)
    right.set_title(f"best {values[best]:.4f} in epoch {epochs[best]}", fontsize=9, color=VERMILION)
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.locator_params(axis="x", integer=True)
    save_figure(figure, path)


def plot_confusion(counts: np.ndarray, class_names: Sequence[str], path: Path, *, title: str, dpi: int = DPI) -> None:
    """Write the figure of draw_confusion, in the format of the path's suffix."""
    save_figure(draw_confusion(counts, class_names, title=title), path, dpi=dpi)


def draw_confusion(counts: np.ndarray, class_names: Sequence[str], *, title: str) -> Any:
    """Draw a confusion matrix, counts [C, C]: rows are the true classes (as fractions), columns the predicted ones."""
    size = len(class_names)
    fractions = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    cell = max(0.17, min(0.42, 5.0 / size))  # inches: large cells for a few classes, a few pixels for many
    figure, axes = _matrix_axes(class_names, cell)
    image = axes.imshow(fractions, cmap="cividis", vmin=0, vmax=1)
    bar = figure.colorbar(image, ax=axes, shrink=0.8, aspect=25)
    bar.set_label("share of the true class", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    if size <= MAX_NAMED_CLASSES:
        names = [_shorten(printable_name(name)) for name in class_names]
        axes.set_xticks(range(size), names, rotation=90, fontsize=7, parse_math=False)  # $ starts no formula
        axes.set_yticks(range(size), names, fontsize=7, parse_math=False)
    if size <= MAX_COUNTED_CLASSES:
        _write_counts(axes, counts, fractions, cell)
    axes.set_xlabel("predicted class", fontsize=8)
    axes.set_ylabel("true class", fontsize=8)
    axes.set_title(printable_name(title), fontsize=8, parse_math=False)
    return figure


def _matrix_axes(class_names: Sequence[str], cell: float) -> tuple[Any, Any]:
    """Create a figure and axes with room for a matrix of these cells (in inches) and for the class names."""
    size = len(class_names)
    side = min(12.0, cell * size)
    longest = min(MAX_NAME, max(map(len, class_names))) if size <= MAX_NAMED_CLASSES else 0
    margin = 0.07 * longest + 0.6
    figure = new_figure(max(side + margin + 0.9, 3.6), max(side, 1.2) + margin + 0.3)
    return figure, figure.subplots()


def _write_counts(axes: Any, counts: np.ndarray, fractions: np.ndarray, cell: float) -> None:
    for row, column in np.argwhere(counts > 0):
        text = str(counts[row, column])
        font = min(7.0, 72 * cell / (0.75 * max(2, len(text))))
        color = "white" if fractions[row, column] < 0.6 else "black"
        axes.text(column, row, text, ha="center", va="center", fontsize=font, color=color)


def _shorten(name: str) -> str:
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 1]}…"
