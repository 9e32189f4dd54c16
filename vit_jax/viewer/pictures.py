"""A picture as a data: URI for a page, and the colours of its maps."""

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

from vit_jax.explain.heatmap import colour_table
from vit_jax.plot.colours import COLOURS, SIGNED_COLOURS
from vit_jax.viewer.coding import encode_arrays

LARGEST_SIDE = 640  # pixels of a page's picture
SMALL_SIDE = 128  # up to here pixels are shown as they are, without loss
JPEG_QUALITY = 88


def encode_picture(picture: Image.Image) -> tuple[str, tuple[int, int]]:
    """Return an RGB picture as a data: URI, and its (width, height) there: its longer side is LARGEST_SIDE at most."""
    scale = min(1.0, LARGEST_SIDE / max(picture.size))
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    shown = picture if size == picture.size else picture.resize(size, Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    if max(size) <= SMALL_SIDE:
        kind = "png"
        shown.save(buffer, "PNG", optimize=True)
    else:
        kind = "jpeg"
        shown.save(buffer, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}", size


def encode_colours() -> dict[str, Any]:
    """Return the colour tables of figures, for a page."""
    tables = {"heat": COLOURS, "signed": SIGNED_COLOURS}
    return encode_arrays({name: np.round(255 * colour_table(table)).astype(np.uint8) for name, table in tables.items()})
