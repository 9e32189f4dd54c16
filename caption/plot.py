"""The figure of one caption: the picture, and a panel per word with its map.

150 dots per inch, perceptually uniform colours; vit_jax.plot.save_figure writes it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Array, Float, UInt8
from PIL import Image

from vit_jax.errors import InputError
from vit_jax.plot import Panel, arrange_in_rows, plot_panels

MAX_SIDE = 640  # pixels: more than a panel shows; a 20-megapixel photograph would be rendered once per word
END_NAMES = {"[SEP]": "(end)"}


def plot_caption(
    image: UInt8[np.ndarray, "h w 3"],
    words: Sequence[tuple[str, Float[Array | np.ndarray, "gh gw"]]],
    caption: str,
    *,
    alpha: float = 0.5,
) -> Any:
    """Return a matplotlib Figure: the caption as title, the picture, and a panel per word in reading order.

    words: (word, map) pairs as of word_attention, the end token included. Each map is scaled to its own range.
    alpha: opacity of the maps.

    Raises InputError when there is no word.
    """
    if not words:
        raise InputError("no words to draw; a caption has at least its end token")
    picture = _shrink(image).astype(np.float32) / 255
    panels = [Panel("image", None), *(Panel(END_NAMES.get(word, word), heat) for word, heat in words)]
    rows = arrange_in_rows(panels, max_columns=_max_columns(len(panels), image.shape))
    return plot_panels(picture, rows, title=caption, alpha=alpha)


def _shrink(image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "H W 3"]:
    picture = Image.fromarray(image)
    picture.thumbnail((MAX_SIDE, MAX_SIDE))
    return np.asarray(picture)


def _max_columns(panels: int, shape: tuple[int, ...]) -> int:
    """Return more columns for tall pictures and long captions, so that the figure fits a page."""
    most = 4 if panels <= 8 else 5
    return most + (shape[0] > shape[1])
