"""The figures of an image: its maps by method, and its attention by head and by layer."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.explain.explainer import Explainer
from experiments.explain.images import OpenedImage
from vit_jax.explain import HEAD_METHODS, METHODS
from vit_jax.plot import (
    Panel,
    arrange_in_rows,
    format_labels,
    format_map_title,
    plot_head_table,
    plot_heads,
    plot_layers,
    plot_panels,
)
from vit_jax.prediction import predicted_labels

MAX_LABELS = 5  # of an image, in a title
HEADS, LAYERS = "_heads", "_layers"  # added to the name of an image's result


def figure_ends(*, maps: bool, head_methods: Sequence[str], all_heads: bool, all_layers: bool) -> list[str]:
    """Return what is added to the name of an image's result for each of its figures.

    maps: whether it has any; head_methods: each has a figure of its own.
    """
    ends = {"": maps, HEADS: all_heads, LAYERS: all_layers}
    return [*(end for end, is_drawn in ends.items() if is_drawn), *(f"_{name}" for name in head_methods)]


def draw_figures(
    explainer: Explainer, image: OpenedImage, results: dict[str, np.ndarray], scale: str
) -> dict[str, Any]:
    """Return the figures of an image by the end of their names. scale: of the colours; see plot_panels."""
    title = _title(explainer, image, results)
    figures: dict[str, Any] = {}
    if explainer.methods:
        panels = [Panel(image.title, None), *_list_panels(explainer, results)]
        figures[""] = plot_panels(image.view, arrange_in_rows(panels), title=title, scale=scale)
    if explainer.all_heads:
        label = f"{title}\nAttention by head, layer {explainer.layer}"
        figures[HEADS] = plot_heads(image.view, results["attention_heads"], title=label, scale=scale)
    if explainer.all_layers:
        head = "mean over heads" if explainer.head is None else f"head {explainer.head}"
        label = f"{title}\nAttention by layer, {head}"
        figures[LAYERS] = plot_layers(image.view, results["attention_layers"], title=label, scale=scale)
    for name in explainer.head_methods:
        figures[f"_{name}"] = _draw_head_table(explainer, name, results, title)
    return figures


def _draw_head_table(explainer: Explainer, name: str, results: dict[str, np.ndarray], title: str) -> Any:
    """Draw a head method's table; one of a class has one for each target, with its name and probability."""
    method = HEAD_METHODS[name]
    if method.is_class_specific:
        titles = [_name_target(explainer, results, target) for target in results["targets"].tolist()]
        tables = list(zip(titles, results[name], strict=True))
    else:
        tables = [("", results[name][0])]
    label = f"{title}\n{method.title} of every head"
    return plot_head_table(tables, title=label, quantity=method.unit, is_signed=method.is_signed)


def _name_target(explainer: Explainer, results: dict[str, np.ndarray], target: int) -> str:
    return format_map_title(
        "", target=explainer.class_name(target), probability=float(results["probabilities"][target])
    ).strip()


def _title(explainer: Explainer, image: OpenedImage, results: dict[str, np.ndarray]) -> str:
    """Return the name of the image's file, and the predicted class or set of labels if the model has a head."""
    if not explainer.has_classes:
        return image.name
    values = results["probabilities"]
    labels = predicted_labels(explainer.model.config, values)
    shown = format_labels((explainer.class_name(label), float(values[label])) for label in labels[:MAX_LABELS])
    return f"{image.name}\n{shown}{', ...' if len(labels) > MAX_LABELS else ''}"


def _list_panels(explainer: Explainer, results: dict[str, np.ndarray]) -> list[Panel]:
    """Return the panels of all methods; methods of a class have one for each target, with its name and probability."""
    panels = []
    for name in explainer.methods:
        method = METHODS[name]
        layer = explainer.layer if method.uses_layer else None
        head = explainer.head if method.uses_head else None
        if not method.is_class_specific:
            title = format_map_title(method.title, layer=layer, head=head)
            marks = explainer.options.patches_in(explainer.model.config.grid) if method.uses_patches else ()
            panels.append(Panel(title, results[name][0], method.label, method.is_signed, marks))
            continue
        for target, heat in zip(results["targets"].tolist(), results[name], strict=True):
            probability = float(results["probabilities"][target])
            target_name = explainer.class_name(target)
            title = format_map_title(method.title, layer=layer, target=target_name, probability=probability)
            panels.append(Panel(title, heat, method.label, method.is_signed))
    return panels
