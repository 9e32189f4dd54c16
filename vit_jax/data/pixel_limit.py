"""The largest image that is decoded: Pillow's limit against files that exhaust the memory, or the user's."""

import os

from PIL import Image

from vit_jax.errors import InputError
from vit_jax.numerals import parse_int

VARIABLE = "VIT_JAX_MAX_PIXELS"


def set_pixel_limit() -> None:
    """Set Pillow's limit to the environment's, if there is one. Raises InputError for a value that is no number."""
    value = os.environ.get(VARIABLE)
    if value is None:
        return
    pixels = parse_int(value)
    if pixels is None or pixels < 1:
        raise InputError(f"{VARIABLE}={value}: not a number of pixels above 0")
    Image.MAX_IMAGE_PIXELS = -(-pixels // 2)  # Pillow warns above it, and refuses above twice as many


def describe_pixel_limit() -> str:
    """Return the problem of an image above the limit, and the remedy."""
    limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
    return f"has more than {limit:,} pixels, the limit for safety; to read it, set {VARIABLE} to its width x height"
