"""Decode an image file of any common format, or a .npy array, to an upright 8-bit picture."""

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from vit_jax.channels import MODES, Picture, as_picture, as_rgb, to_channels
from vit_jax.errors import InputError

ARRAY = ".npy"
EXTENSIONS = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})


class CorruptImageError(InputError):
    """A file that is not a readable image."""


def open_rgb(file: str | Path | bytes) -> Image.Image:
    """Decode an image, from a path or its bytes, and return it upright and RGB.

    Palettes, grey and CMYK are converted; alpha is dropped, as torchvision's loader does. Raises as open_picture does.
    """
    return as_rgb(open_picture(file), name="image" if isinstance(file, bytes) else str(file))


def open_picture(file: str | Path | bytes, channels: int | None = None) -> Picture:
    """Decode an image, from a path or its bytes, and return it upright (EXIF orientation applied), 8 bits a channel.

    channels: convert to so many; see vit_jax.channels.to_channels. None keeps grey, RGB, RGBA and CMYK as stored;
    palettes and other modes become RGB (RGBA where a palette has transparency), 16 bits of grey the upper 8.
    A .npy file holds a uint8 array [h, w] or [h, w, c].
    Raises CorruptImageError naming the file when it cannot be decoded completely; InputError when it is missing, is an
    array of another kind, or its channels do not fit.
    """
    name = "image" if isinstance(file, bytes) else str(file)
    is_array = not isinstance(file, bytes) and Path(file).suffix.lower() == ARRAY
    picture = _open_array(Path(name)) if is_array else _open_image(file, name)
    return picture if channels is None else to_channels(picture, channels, name=name)


def _open_array(path: Path) -> Picture:
    try:
        array = np.lib.format.open_memmap(path, mode="r")  # checks the length of the file; reads no pickles
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (OSError, ValueError, EOFError) as error:
        raise CorruptImageError(f"{path}: not a readable array ({error})") from error
    try:
        return as_picture(np.array(array) if array.dtype == np.uint8 else array)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _open_image(file: str | Path | bytes, name: str) -> Image.Image:
    source: Path | io.BytesIO = io.BytesIO(file) if isinstance(file, bytes) else Path(file)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # broken EXIF blocks and palettes warn, and still decode
            with Image.open(source) as image:
                image.load()
                return _to_8_bits(ImageOps.exif_transpose(image))
    except FileNotFoundError as error:
        raise InputError(f"{name}: no such file") from error
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, Image.DecompressionBombError) as error:
        raise CorruptImageError(f"{name}: not a readable image ({str(error) or type(error).__name__})") from error


def _to_8_bits(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits (Pillow's I;16, or I when read from PNG): keep the upper 8
        return Image.fromarray((np.asarray(image).clip(0, 65535) // 256).astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        return image.convert("RGBA")
    return image if any(image.mode in modes for modes in MODES.values()) else image.convert("RGB")
