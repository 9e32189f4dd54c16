"""A picture as a data: URI for a page."""

import base64
import io

from PIL import Image

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
