"""Decode an image file of any common format, or a .npy array, to an upright 8-bit picture."""

import errno
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from vit_jax.background import WHITE
from vit_jax.channels import MODES, Picture, as_picture, as_rgb, to_channels
from vit_jax.data.bit_depth import OutOfRangeError, is_deep_grey, read_depth, scale_grey
from vit_jax.data.deep_colour import is_certain, join_bytes, low_byte_mode, scale_colours, select_low_bytes
from vit_jax.data.formats import image_suffixes, is_array
from vit_jax.data.guessed_ranges import guessed_ranges
from vit_jax.data.pixel_limit import describe_pixel_limit, set_pixel_limit
from vit_jax.errors import InputError
from vit_jax.preprocess import Preprocess


class CorruptImageError(InputError):
    """A file that is not a readable image."""


def open_rgb(file: str | Path | bytes, *, background: str = WHITE, max_value: float | None = None) -> Image.Image:
    """Decode an image, from a path or its bytes, and return it upright and RGB.

    Palettes, grey and CMYK are converted; transparent parts show the background, a colour. max_value: see open_picture.
    Raises as open_picture does.
    """
    picture = open_picture(file, max_value=max_value)
    return as_rgb(picture, background=background, name="image" if isinstance(file, bytes) else str(file))


def open_picture(
    file: str | Path | bytes,
    channels: int | None = None,
    *,
    background: str = WHITE,
    max_value: float | None = None,
    name: str | None = None,
) -> Picture:
    """Decode an image, from a path or its bytes, and return it upright (EXIF orientation applied), 8 bits a channel.

    channels: convert to so many, on a background; see vit_jax.channels.to_channels. None keeps grey, RGB, RGBA and CMYK
    as stored; other modes become RGB, and any with transparency RGBA.
    max_value: the value of white in images of more than 8 bits; None for that of the file, or a guess: see bit_depth.
    name: for messages, by default the path. A .npy file holds a uint8 array [h, w] or [h, w, c].
    Raises CorruptImageError naming the file when it cannot be decoded completely; InputError when it is missing, is an
    array of another kind, has values above max_value, or its channels do not fit.
    """
    name = name or ("image" if isinstance(file, bytes) else str(file))
    if isinstance(file, bytes) or not is_array(file):
        picture: Picture = _open_image(file, name, max_value)
    else:
        picture = _open_array(Path(name))
    return picture if channels is None else to_channels(picture, channels, name=name, background=background)


def open_model_picture(file: str | Path, preprocess: Preprocess) -> Picture:
    """Decode an image file as the preprocessing of a model says. Raises as open_picture does."""
    return open_picture(file, preprocess.channels, background=preprocess.background, max_value=preprocess.max_value)


def as_upright(image: Any, *, name: str = "the image") -> Picture:
    """Return a PIL image, as its EXIF orientation says that it is shown, or a uint8 array, as a Picture.

    Raises InputError with the name as as_picture does, and CorruptImageError for an opened file that cannot be decoded.
    """
    picture = as_picture(image, name=name)
    if not isinstance(picture, Image.Image):
        return picture
    with decoding_errors(name):
        return ImageOps.exif_transpose(picture)


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


def _open_image(file: str | Path | bytes, name: str, max_value: float | None) -> Image.Image:
    image_suffixes()  # registers all formats
    with warnings.catch_warnings(), decoding_errors(name):
        warnings.simplefilter("ignore")  # broken EXIF blocks and palettes warn, and still decode
        return _decode(file, name, max_value)


@contextmanager
def decoding_errors(name: str) -> Iterator[None]:
    """Allow images up to the pixel limit while the block decodes one, and name it in every error.

    Raises CorruptImageError for one that cannot be decoded or is too large, InputError for one that cannot be read.
    """
    set_pixel_limit()
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{name}: no such file") from error
    except Image.DecompressionBombError as error:
        raise CorruptImageError(f"{name}: {describe_pixel_limit()}") from error
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):  # not of the decoder, and EINVAL is a seek to a wrong offset
            raise InputError(f"{name}: cannot be read ({error.strerror}); change its permissions or move it") from error
        raise _corrupt(name, error) from error
    except (SyntaxError, ValueError, EOFError, IndexError) as error:
        raise _corrupt(name, error) from error


def _decode(file: str | Path | bytes, name: str, max_value: float | None) -> Image.Image:
    """Decode an image upright with 8 bits per channel, and count it if its range was guessed."""
    with Image.open(_source(file)) as image:
        mode = low_byte_mode(image)
        depth = read_depth(image, max_value) if mode or is_deep_grey(image) else None
        image.load()
        upright = ImageOps.exif_transpose(image)
    key = upright.info.get("transparency")
    if depth is None or (mode and key is None and depth.max_value is None and is_certain(upright)):
        return _to_8_bits(upright)
    values = join_bytes(upright, _decode_low_bytes(file, mode), mode) if mode else np.asarray(upright)
    try:
        scaled = scale_colours(values, depth) if mode else scale_grey(upright, depth)
    except OutOfRangeError as error:
        raise InputError(f"{name}: {error}") from error
    except InputError as error:
        raise CorruptImageError(f"{name}: {error}") from error
    if scaled.guess:
        guessed_ranges.add(hash(file), name, scaled.largest, scaled.guess)
    image_8_bits = Image.fromarray(scaled.values)
    return image_8_bits if key is None else _make_transparent(image_8_bits, values, key)


def _make_transparent(image: Image.Image, values: np.ndarray, key: int | tuple[int, ...]) -> Image.Image:
    """Return an image as RGBA, transparent where its values of more than 8 bits are those of the key."""
    is_opaque = (np.atleast_3d(values) != np.array(key)).any(axis=-1)
    image = image.convert("RGBA")
    image.putalpha(Image.fromarray(is_opaque.astype(np.uint8) * 255))
    return image


def _decode_low_bytes(file: str | Path | bytes, mode: str) -> Image.Image:
    with Image.open(_source(file)) as image:
        select_low_bytes(image, mode)
        image.load()
        return ImageOps.exif_transpose(image)


def _source(file: str | Path | bytes) -> Path | io.BytesIO:
    return io.BytesIO(file) if isinstance(file, bytes) else Path(file)


def _corrupt(name: str, error: Exception) -> CorruptImageError:
    return CorruptImageError(f"{name}: not a readable image ({str(error) or type(error).__name__})")


def _to_8_bits(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        return image if image.mode == "RGBA" else image.convert("RGBA")
    return image if any(image.mode in modes for modes in MODES.values()) else image.convert("RGB")
