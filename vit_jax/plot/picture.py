"""Pictures that figures show: PIL images, uint8 or floats in, RGB floats out."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from PIL import Image

from vit_jax.channels import as_rgb
from vit_jax.errors import InputError

MAX_SIDE = 640  # pixels: a panel of two inches at 300 dpi; a 20-megapixel photograph would be drawn in every panel
ROUNDING = 1e-5  # of floats that were computed


def as_pixels(image: Any) -> Float[np.ndarray, "h w 3"]:
    """Return a picture as RGB floats in [0, 1].

    image: a PIL image (transparent parts show white), or an array [h, w], [h, w, 1] or [h, w, 3]: uint8, or floats in
    [0, 1]. Raises InputError for anything else, and for floats outside [0, 1]: their range is not guessed.
    """
    if isinstance(image, Image.Image):
        return _to_unit_range(as_rgb(image))
    dtype = getattr(image, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
        return _to_unit_range(as_rgb(image))
    pixels = np.asarray(image, np.float32)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[-1] not in (1, 3) or not pixels.size:
        raise InputError(f"a picture has the shape [h, w], [h, w, 1] or [h, w, 3], not {tuple(image.shape)}")
    low, high = float(pixels.min()), float(pixels.max())
    if not (low >= -ROUNDING and high <= 1 + ROUNDING):  # NaN fails too
        raise InputError(
            f"a picture of floats from {low:g} to {high:g}: they must lie in [0, 1]; divide 0 to 255 by 255, and undo "
            "a normalisation by pixels * std + mean"
        )
    return np.broadcast_to(pixels.clip(0, 1), (*pixels.shape[:2], 3))


def _to_unit_range(image: Image.Image) -> Float[np.ndarray, "h w 3"]:
    return np.asarray(image, np.float32) / 255


def shrink_picture(image: Any, side: int = MAX_SIDE) -> Float[np.ndarray, "h w 3"]:
    """Return a picture as as_pixels does, its longer side at most `side` pixels."""
    pixels = as_pixels(image)
    if max(pixels.shape[:2]) <= side:
        return pixels
    small = Image.fromarray(np.round(255 * pixels).astype(np.uint8))
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    return _to_unit_range(small)
