"""Figures of a run: its curves, and a confusion matrix."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vit_jax.plot import new_figure, save_figure

BLUE, VERMILION, GREEN = "#0072B2", "#D55E00", "#009E73"  # of Okabe and Ito's colour-blind safe set
LONGEST = 32  # letters of a class name beside a matrix


def plot_curves(
    records: Sequence[dict[str, Any]],
    path: Path,
    *,
    title: str,
    measure: str = "val_accuracy",
    label: str = "validation accuracy",
    lowest: bool = False,
) -> None:
    """Training loss and a measure of validation by epoch, side by side, the best epoch marked (lowest: the least)."""
    epochs = [record["epoch"] for record in records]
    values = [record[measure] for record in records]
    best = int(np.argmin(values) if lowest else np.argmax(values))
    figure = new_figure(8.0, 3.2)
    figure.suptitle(title, fontsize=10, parse_math=False)
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


def plot_confusion(counts: np.ndarray, class_names: Sequence[str], path: Path, *, title: str) -> None:
    """Write confusion_figure's PNG."""
    save_figure(confusion_figure(counts, class_names, title=title), path)


def confusion_figure(counts: np.ndarray, class_names: Sequence[str], *, title: str) -> Any:
    """Confusion matrix, counts [C, C]: rows are the true classes (shown as shares), columns the predicted ones.

    Names are written for up to 60 classes, counts for up to 40.
    """
    size = len(class_names)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    cell = max(0.17, min(0.42, 5.0 / size))  # inches: all of a few classes, and a few pixels of many
    side = min(12.0, cell * size)
    letters = min(LONGEST, max(map(len, class_names))) if size <= 60 else 0
    names = [_shortened(name) for name in class_names]
    beside = 0.07 * letters + 0.6  # inches for the names
    figure = new_figure(max(side + beside + 0.9, 3.6), max(side, 1.2) + beside + 0.3)
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="cividis", vmin=0, vmax=1)
    bar = figure.colorbar(image, ax=axes, shrink=0.8, aspect=25)
    bar.set_label("share of the true class", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    if size <= 60:
        axes.set_xticks(range(size), names, rotation=90, fontsize=7, parse_math=False)  # two $ are no formula
        axes.set_yticks(range(size), names, fontsize=7, parse_math=False)
    if size <= 40:
        for row, column in np.argwhere(counts > 0):
            dark = shares[row, column] < 0.6
            text = str(counts[row, column])
            font = min(7.0, 72 * cell / (0.75 * max(2, len(text))))
            axes.text(column, row, text, ha="center", va="center", fontsize=font, color="white" if dark else "black")
    axes.set_xlabel("predicted class", fontsize=8)
    axes.set_ylabel("true class", fontsize=8)
    axes.set_title(title, fontsize=8, parse_math=False)
    return figure


def _shortened(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
