"""The channels of pictures, converted to those that a model takes: grey, RGB, four bands, or any number of bands.

A Picture is a PIL image, or a uint8 array [h, w, c] of bands that no PIL mode describes (multispectral images).
"""

from typing import Any

import jax
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from vit_jax.background import WHITE, compose
from vit_jax.errors import InputError

Picture = Image.Image | UInt8[np.ndarray, "_ _ _"]
MODES = {1: ("L",), 3: ("RGB",), 4: ("RGBA", "CMYK")}  # PIL modes by number of channels


def as_picture(image: Any, *, name: str = "") -> Picture:
    """Return a PIL image, or a uint8 array [h, w] or [h, w, c], as a Picture.

    Raises InputError, with the name in front, for anything else, and for more than 8 bits a channel: the range of such
    an image is not known here.
    """
    where = f"{name}: " if name else ""
    if isinstance(image, (np.ndarray, jax.Array)):
        array = np.asarray(image)
        if array.dtype != np.uint8 or array.ndim not in (2, 3) or not array.size:
            raise InputError(
                f"{where}an image array is uint8 [height, width, channels], not {array.dtype} {array.shape}"
            )
        if array.ndim == 2 or array.shape[2] == 1:
            return Image.fromarray(array.reshape(array.shape[:2]))
        return Image.fromarray(array) if array.shape[2] == 3 else array
    if not isinstance(image, Image.Image):
        raise InputError(f"{where}not an image: {type(image).__name__}; give a PIL image or a uint8 array")
    if image.mode == "F" or image.mode.startswith("I"):
        raise InputError(f"{where}an image of mode {image.mode} has no fixed range; open it with vit_jax.data.open_rgb")
    return image.convert("LA") if image.mode == "La" else image  # Pillow has no other way out of "La"


def to_channels(picture: Picture, channels: int, *, name: str = "the image", background: str = WHITE) -> Picture:
    """Return a picture with the number of channels that a model takes.

    1 and 3: any PIL image, composed on the background where it is transparent, and converted to grey or to RGB. 4: an
    image of four bands (RGBA, CMYK) as it is. An array of bands needs as many as the model takes.
    Raises InputError with the picture's name for any other picture: bands are not invented, dropped or mixed.
    """
    if isinstance(picture, Image.Image):
        modes = MODES.get(channels, ())
        if len(modes) == 1:
            picture = compose(picture, background)
        if picture.mode in modes:
            return picture
        if len(modes) == 1:
            return picture.convert(modes[0])
    elif picture.shape[2] == channels:
        return picture
    remedy = "give pictures of four bands (RGBA or CMYK), or" if channels == 4 else "give"
    arrays = "pictures" if channels in (1, 3) else f".npy arrays, uint8 [height, width, {channels}]"
    raise InputError(f"{name}: has {_describe(picture)}, and the model takes {channels}; {remedy} {arrays}")


def as_rgb(image: Any, *, name: str = "the image", background: str = WHITE) -> Image.Image:
    """Return a PIL image, or a uint8 array, as an RGB image; transparent parts show the background.

    Raises InputError as as_picture and to_channels do.
    """
    picture = to_channels(as_picture(image), 3, name=name, background=background)
    assert isinstance(picture, Image.Image)
    return picture


def _describe(picture: Picture) -> str:
    if isinstance(picture, Image.Image):
        return f"{len(picture.getbands())} channels ({picture.mode})"
    return f"{picture.shape[2]} channels"


def split_bands(picture: Picture) -> list[Image.Image]:
    """Return a picture as PIL images that can be resized without mixing bands: itself if grey or RGB, else each band.

    Pillow multiplies the colours of RGBA by alpha when it resizes; as bands of a model's input they are independent.
    """
    if isinstance(picture, Image.Image):
        return [picture] if picture.mode in ("L", "RGB") else list(picture.split())
    return [Image.fromarray(picture[..., band]) for band in range(picture.shape[2])]


def to_rgb(picture: Picture) -> Image.Image:
    """Return a picture as RGB, for figures: of an array the first three bands, or the first as grey; see `shown`."""
    if isinstance(picture, Image.Image):
        return picture.convert("RGB")
    return Image.fromarray(picture[..., :3] if picture.shape[2] >= 3 else picture[..., 0]).convert("RGB")


def shown(picture: Picture) -> str:
    """Return what to_rgb shows of a picture, as an addition to a title; "" for all of it."""
    if isinstance(picture, Image.Image):
        return " without alpha" if picture.mode == "RGBA" else ""
    count = picture.shape[2]
    return f", bands 1-3 of {count}" if count >= 3 else f", band 1 of {count}"
