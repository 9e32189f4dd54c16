"""A heat map over its picture: an explanation that draws and shows itself."""

import base64
import io
import os
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image

from vit_jax.plot import Panel, format_labels, format_map_title, plot_panels, save_figure


@dataclass(frozen=True, eq=False)
class HeatMap:
    """One explanation map of one picture. In a notebook it shows itself as a figure.

    values:      scores [gh, gw], one per patch ([h, w] of a method per pixel); colours [gh, gw, 3] in [0, 1] of pca.
    image:       the part of the picture that the model sees, RGB, at the picture's own resolution.
    method:      the method's title, as "Relevance".
    target:      the name of the explained class; "" if the map is of no class.
    probability: of the target, in [0, 1]; None without a target.
    prediction:  the predicted classes with their probabilities: one, or of a multi-label model any number; None for a
                 model without a head.
    layer, head: of a method of one layer; None if the map is not of a single one.
    patches:     of similarity: (row, column) of the patches that the map compares with.
    is_signed:   whether negative scores speak against the target.
    quantity:    what the scores measure, as the label of their colours.
    image_title: of the picture; says which bands it shows if not all.
    """

    values: Float[np.ndarray, "gh gw ..."]
    image: Image.Image = field(repr=False)
    method: str
    target: str = ""
    probability: float | None = None
    prediction: tuple[tuple[str, float], ...] | None = None
    layer: int | None = None
    head: int | None = None
    patches: tuple[tuple[int, int], ...] = ()
    is_signed: bool = False
    quantity: str = ""
    image_title: str = "image"

    @property
    def title(self) -> str:
        """What the map shows, as "Relevance for Bengal (p = 0.28)"."""
        target = self.target or None
        return format_map_title(
            self.method, layer=self.layer, head=self.head, target=target, probability=self.probability
        )

    def __repr__(self) -> str:
        rows, columns = self.values.shape[:2]
        return f"HeatMap({self.title!r}, {rows}x{columns})"

    def plot(self) -> Any:
        """Return a matplotlib Figure: the picture, and the map over it. Its opacity follows the heat."""
        heat = Panel(self.title, self.values, self.quantity or self.method, self.is_signed, self.patches)
        title = "" if self.prediction is None else format_labels(self.prediction)
        return plot_panels(self.image, [[Panel(self.image_title, None), heat]], title=title)

    def save(self, path: str | os.PathLike) -> None:
        """Write the figure to a .png, .pdf or .svg file. Raises InputError for another suffix."""
        save_figure(self.plot(), path)

    @cached_property
    def _png(self) -> bytes:
        buffer = io.BytesIO()
        self.plot().savefig(buffer, format="png")
        return buffer.getvalue()

    def _repr_png_(self) -> bytes:
        """Return the figure as a PNG, for notebooks."""
        return self._png

    def _repr_html_(self) -> str:
        """Return the figure as an HTML image with its title as the text for screen readers."""
        data = base64.b64encode(self._png).decode()
        return f'<img alt="{escape(self.title)}" style="max-width: 100%" src="data:image/png;base64,{data}">'
