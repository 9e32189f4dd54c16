"""The figure of one caption: the picture, and a panel per word with its map.

vit_jax.plot.save_figure writes it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Array, Float

from vit_jax.errors import InputError
from vit_jax.plot import ALPHA, Panel, arrange_in_rows, as_pixels, plot_panels

END_NAMES = {"[SEP]": "(end)"}


def plot_caption(
    image: Any,
    words: Sequence[tuple[str, Float[Array | np.ndarray, "gh gw"]]],
    caption: str,
    *,
    alpha: float = ALPHA,
    scale: str = "own",
    quantity: str = "attention",
) -> Any:
    """Return a matplotlib Figure: the caption as title, the picture, and a panel per word in reading order.

    image: see as_pixels. words: (word, map) pairs as of word_attention, the end token
    included. alpha, scale: see plot_panels; quantity: what the maps measure.

    Raises InputError when there is no word, and for an image out of range.
    """
    if not words:
        raise InputError("no words to draw; a caption has at least its end token")
    pixels = as_pixels(image)
    panels = [Panel("image", None), *(Panel(END_NAMES.get(word, word), heat, quantity) for word, heat in words)]
    rows = arrange_in_rows(panels, max_columns=_max_columns(len(panels), pixels.shape))
    return plot_panels(pixels, rows, title=caption, alpha=alpha, scale=scale)


def _max_columns(panels: int, shape: tuple[int, ...]) -> int:
    """Return more columns for tall pictures and long captions, so that the figure fits a page."""
    most = 4 if panels <= 8 else 5
    return most + (shape[0] > shape[1])
