"""Figures as the report embeds them: PNG bytes, shown at their printed size."""

import io
import warnings
from typing import Any

from PIL import Image, UnidentifiedImageError

from experiments.report.page import Figure
from vit_jax.plot import DPI

CSS_DPI = 96


def render_figure(name: str, caption: str, figure: Any) -> Figure:
    """Render a matplotlib figure. Characters that its font lacks become boxes in it; the caption shows them."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
        figure.savefig(buffer, format="png")
    return wrap_png(name, caption, buffer.getvalue())


def wrap_png(name: str, caption: str, png: bytes) -> Figure:
    """Return a figure from a PNG at its printed size; one that states no dots per inch has DPI.

    Raises ValueError when the bytes are not a complete PNG.
    """
    try:
        with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
            image.load()
            dpi, _ = image.info.get("dpi", (DPI, DPI))
            return Figure(name, caption, png, round(image.width * CSS_DPI / dpi))
    except (OSError, SyntaxError, UnidentifiedImageError) as error:
        raise ValueError(f"{name}: not a complete PNG") from error
