"""Figures as a report holds them: PNG bytes, shown at their printed size."""

import io
import warnings
from typing import Any

from PIL import Image, UnidentifiedImageError

from experiments.report.page import Figure
from vit_jax.plot import DPI

CSS_DPI = 96


def figure(name: str, caption: str, drawn: Any) -> Figure:
    """A matplotlib figure for the report; letters that its font lacks are boxes in it, and right in the caption."""
    held = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
        drawn.savefig(held, format="png")
    return png_figure(name, caption, held.getvalue())


def png_figure(name: str, caption: str, png: bytes) -> Figure:
    """A PNG drawn by this library for the report. Raises ValueError when the bytes are no whole PNG."""
    try:
        with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
            image.load()
            return Figure(name, caption, png, round(image.width * CSS_DPI / DPI))
    except (OSError, SyntaxError, UnidentifiedImageError) as error:
        raise ValueError(f"{name}: no whole PNG") from error
