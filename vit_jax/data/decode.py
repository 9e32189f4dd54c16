"""Decode an image file of any common format to upright 8-bit RGB."""

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from vit_jax.errors import InputError

EXTENSIONS = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})


class CorruptImageError(InputError):
    """A file that is not a readable image."""


def open_rgb(file: str | Path | bytes) -> Image.Image:
    """Decode an image, from a path or its bytes, and return it upright (EXIF orientation applied) and RGB.

    Palettes, grey (8 and 16 bits) and CMYK are converted; alpha is dropped, as torchvision's loader does.
    Raises CorruptImageError naming the file when it cannot be decoded completely.
    """
    name = "image" if isinstance(file, bytes) else str(file)
    source: Path | io.BytesIO = io.BytesIO(file) if isinstance(file, bytes) else Path(file)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # broken EXIF blocks and palettes warn, and still decode
            with Image.open(source) as image:
                image.load()
                return _to_rgb(ImageOps.exif_transpose(image))
    except FileNotFoundError as error:
        raise InputError(f"{name}: no such file") from error
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, Image.DecompressionBombError) as error:
        raise CorruptImageError(f"{name}: not a readable image ({str(error) or type(error).__name__})") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits (Pillow's I;16, or I when read from PNG): keep the upper 8
        return Image.fromarray((np.asarray(image).clip(0, 65535) // 256).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")
