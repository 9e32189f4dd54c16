"""Figures of a run: its curves, and a confusion matrix."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vit_jax.plot import new_figure, save_figure

BLUE, VERMILION = "#0072B2", "#D55E00"  # Okabe and Ito's colour-blind safe pair


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
    figure.suptitle(title, fontsize=10)
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
    """Confusion matrix, counts [C, C]: rows are the true classes (shown as shares), columns the predicted ones."""
    size = len(class_names)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(16.0, 2.8 + 0.32 * size)
    figure = new_figure(side + 0.8, side)
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="cividis", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    if size <= 60:
        axes.set_xticks(range(size), class_names, rotation=90, fontsize=7)
        axes.set_yticks(range(size), class_names, fontsize=7)
    if size <= 20:
        for row, column in np.argwhere(counts > 0):
            dark = shares[row, column] < 0.6
            text = str(counts[row, column])
            axes.text(column, row, text, ha="center", va="center", fontsize=7, color="white" if dark else "black")
    axes.set(xlabel="predicted class", ylabel="true class")
    axes.set_title(title, fontsize=9)
    return figure
