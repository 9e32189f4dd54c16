"""Figures of one picture and its maps: of a layer, of heads, of layers, of methods, of classes."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Array, Float

from vit_jax.plot.colours import Map
from vit_jax.plot.panels import Panel, arrange_in_rows, plot_panels

Maps = Float[Array | np.ndarray, "maps gh gw"]


def plot_attention(image: Any, heat: Map, *, title: str = "", name: str = "[class] attention") -> Any:
    """Draw the image next to one map over it, such as its [class] attention (last layer, mean over heads)."""
    return plot_panels(image, [[Panel("image", None), Panel(name, heat, name)]], title=title)


def plot_heads(image: Any, maps: Maps, *, title: str = "", scale: str = "own") -> Any:
    """Draw the image, and a panel for the map of each head. scale: see plot_panels."""
    return _plot_numbered(image, maps, "head", title, scale)


def plot_layers(image: Any, maps: Maps, *, title: str = "", scale: str = "own") -> Any:
    """Draw the image, and a panel for the map of each layer. scale: see plot_panels."""
    return _plot_numbered(image, maps, "layer", title, scale)


def _plot_numbered(image: Any, maps: Maps, noun: str, title: str, scale: str) -> Any:
    panels = [Panel(f"{noun} {number}", heat, "attention weight") for number, heat in enumerate(np.asarray(maps))]
    return plot_panels(image, arrange_in_rows([Panel("image", None), *panels]), title=title, scale=scale)


def plot_methods(image: Any, maps: Mapping[str, Map], *, title: str = "", signed: tuple[str, ...] = ()) -> Any:
    """Draw the image, and the maps of several methods, by name. signed: the names of those with a sign."""
    panels = [Panel(name, heat, name, name in signed) for name, heat in maps.items()]
    return plot_panels(image, arrange_in_rows([Panel("image", None), *panels]), title=title)


def plot_classes(
    image: Any,
    maps: Mapping[str, Map],
    *,
    title: str = "",
    quantity: str = "relevance",
    is_signed: bool = False,
    scale: str = "own",
) -> Any:
    """Draw the image, and the maps of one method for several classes, by class name.

    quantity: what the maps measure, as the label of their colours. scale: see plot_panels.
    """
    panels = [Panel(name, heat, quantity, is_signed) for name, heat in maps.items()]
    return plot_panels(image, arrange_in_rows([Panel("image", None), *panels]), title=title, scale=scale)
