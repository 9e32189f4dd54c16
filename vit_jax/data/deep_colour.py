"""Colour images of 16 bits per channel, of which Pillow reads the high bytes only.

Values of a 10- or 12-bit camera hardly reach the high bytes. Such a file is decoded a second time for its low bytes,
with Pillow's raw mode of the other byte order, and its values are scaled as those of grey images (bit_depth.py).
Remove it once Pillow has modes of 16 bits per channel: https://github.com/python-pillow/Pillow/issues/1888.
"""

import sys
from typing import Any

import numpy as np
from PIL import Image

from vit_jax.data.bit_depth import Depth, Scaled, scale_integers, scale_values, smallest_bits

NATIVE, OTHER = ("L", "B") if sys.byteorder == "little" else ("B", "L")
# Raw mode of the high bytes -> that of the low bytes. Grey with alpha: each of its four bytes becomes a channel.
LOW_BYTES = {f"{mode};16{order}": f"{mode};16{low}" for mode in ("RGB", "RGBA")
             for order, low in (("L", "B"), ("B", "L"), ("N", OTHER))} | {"LA;16B": "RGBA"}  # fmt: skip
CERTAIN = 1 << 6  # a high byte as large as this makes all of 16 bits: the next smaller range has 14


def low_byte_mode(image: Image.Image) -> str | None:
    """Return the raw mode of the low bytes of an image that is not loaded, None unless it has 16 bits per channel."""
    tiles: Any = getattr(image, "tile", ())
    modes = {_raw_mode(tile) for tile in tiles}
    return LOW_BYTES.get(modes.pop()) if len(modes) == 1 else None


def _raw_mode(tile: Any) -> Any:
    return tile.args if isinstance(tile.args, str) else tile.args and tile.args[0]


def select_low_bytes(image: Any, mode: str) -> None:
    """Let an image that is not loaded decode its low bytes."""
    image.tile = [
        tile._replace(args=mode if isinstance(tile.args, str) else (mode, *tile.args[1:])) for tile in image.tile
    ]


def is_certain(high: Image.Image) -> bool:
    """Return whether the high bytes of an image show that its colours use all 16 bits."""
    return max(largest for _, largest in _extrema(high)[:3]) >= CERTAIN


def _extrema(image: Image.Image) -> Any:
    return image.getextrema()


def join_bytes(high: Image.Image, low: Image.Image, mode: str) -> np.ndarray:
    """Return the uint16 values [h, w, c] of an image from its high and its low bytes. mode: of low_byte_mode."""
    low_bytes = np.asarray(low)
    if mode == "RGBA":  # grey high and low, alpha high and low
        low_bytes = low_bytes[..., [1, 1, 1, 3]]
    return np.asarray(high).astype(np.uint16) * 256 + low_bytes


def scale_colours(values: np.ndarray, depth: Depth) -> Scaled:
    """Return the 8-bit values of colours, uint16 [h, w, 3 or 4]; alpha has at least the range of the colours.

    Raises as scale_integers does.
    """
    scaled = scale_integers(values[..., :3], depth)
    if values.shape[2] == 3:
        return scaled
    alpha = values[..., 3:]
    largest = int(alpha.max())
    limit = scaled.limit if largest <= scaled.limit else 2 ** smallest_bits(largest) - 1
    return scaled._replace(values=np.concatenate([scaled.values, scale_values(alpha, limit)], axis=-1))
