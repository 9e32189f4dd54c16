"""The figure of one caption: the picture, and for each word where the model looked when it wrote it.

At 150 dots an inch, in colours that run evenly in lightness; vit_jax.plot.save_figure writes it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Array, Float, UInt8
from PIL import Image

from vit_jax.errors import InputError
from vit_jax.plot import Panel, arrange_in_rows, plot_panels

MAX_SIDE = 640  # pixels: more than a panel shows, and a photograph of 20 megapixels would be drawn for every word
END_NAMES = {"[SEP]": "(end)"}


def plot_caption(
    image: UInt8[np.ndarray, "h w 3"],
    words: Sequence[tuple[str, Float[Array | np.ndarray, "gh gw"]]],
    caption: str,
    *,
    alpha: float = 0.5,
) -> Any:
    """The picture under its caption, and a panel for every word with its map over the picture, in reading order.

    words: (word, map), as word_attention gives them, the end token included; every map goes from its own least to its
    own most. alpha: the maps' opacity. Answers a matplotlib Figure. Raises InputError when there is no word.
    """
    if not words:
        raise InputError("no words to draw; a caption has at least its end token")
    picture = _shrink(image).astype(np.float32) / 255
    panels = [Panel("image", None), *(Panel(END_NAMES.get(word, word), heat) for word, heat in words)]
    return plot_panels(
        picture, arrange_in_rows(panels, max_columns=_max_columns(len(panels), image.shape)), title=caption, alpha=alpha
    )


def _shrink(image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "H W 3"]:
    picture = Image.fromarray(image)
    picture.thumbnail((MAX_SIDE, MAX_SIDE))
    return np.asarray(picture)


def _max_columns(panels: int, shape: tuple[int, ...]) -> int:
    """More columns for tall pictures and long captions, so that the figure stays within a page."""
    most = 4 if panels <= 8 else 5
    return most + (shape[0] > shape[1])
