"""From a picture to a model's input: resize, crop, normalise.

Every checkpoint carries its Preprocess: another kernel or mean changes a model's predictions without any error.
"""

import math
import statistics
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8
from PIL import Image

from vit_jax.background import WHITE, parse_colour
from vit_jax.channels import Picture, as_picture, split_bands, to_channels
from vit_jax.errors import InputError
from vit_jax.suggest import describe_unknown

KERNELS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}
# Where the centre begins if the margin is odd, as a function of the margin in pixels.
CENTRES = {
    "round": lambda margin: round(margin / 2),  # torchvision and timm: to the even half
    "floor": lambda margin: margin // 2,  # Hugging Face
}


def cover(image: tuple[int, int], target: tuple[int, int]) -> tuple[int, int]:
    """Return the size of a picture after its shorter side has been resized to a target; sizes are (width, height).

    A square target has the arithmetic of torchvision's Resize and of Hugging Face's "shortest_edge", which truncate the
    longer side; any other target that of timm's ResizeKeepRatio, which rounds both.
    """
    if target[0] == target[1]:
        short, long = min(image), max(image)
        longer_side = int(target[0] * long / short)
        return (target[0], longer_side) if image[0] <= image[1] else (longer_side, target[1])
    ratio = min(image[0] / target[0], image[1] / target[1])
    return round(image[0] / ratio), round(image[1] / ratio)


def _scale_span(start: int, length: int, factor: float) -> tuple[int, int]:
    """Return the first and the last edge of a span of pixels in a picture that is `factor` times as large."""
    first = round(start * factor)
    return first, max(first + 1, round((start + length) * factor))


def check_max_value(value: float | None) -> None:
    """Raise InputError unless the value of white is None or a number above 0."""
    if value is not None and not 0 < value < math.inf:
        raise InputError(f"max_value is a number above 0, not {value}")


@dataclass(frozen=True)
class Preprocess:
    """The input convention that weights were trained with; the size is the model's own, see ImagePreprocess.

    mean, std: a value per channel, on the scale [0, 1]; their number is the number of channels.
    kernel:    Pillow's resampling, antialiased as torchvision's on PIL images: one of KERNELS.
    crop:      None resizes to the model's size without keeping the aspect ratio (PyTorch-Pretrained-ViT's recipe). A
               fraction in (0, 1] resizes the shorter side to floor(size / crop) and takes the centre (timm's crop_pct).
    squash:    with a crop: resize both sides to floor(size / crop), without keeping the aspect ratio, before the
               centre is taken (Hugging Face's DeiT, timm's crop_mode "squash").
    centre:    with a crop: how an odd margin is halved, one of CENTRES.
    background: the colour behind transparent images of 1 and 3 channels, a name or #rrggbb.
    max_value: the value of white in image files of more than 8 bits, such as 4095 for 12 bits; None for the range that
               each file states, or a guess: see vit_jax.data.bit_depth.

    Raises InputError for an unknown kernel, centre or colour and for numbers out of range.
    """

    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    kernel: str = "bilinear"
    crop: float | None = None
    squash: bool = False
    centre: str = "round"
    background: str = WHITE
    max_value: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", tuple(self.mean))
        object.__setattr__(self, "std", tuple(self.std))
        object.__setattr__(self, "background", parse_colour(self.background))
        check_max_value(self.max_value)
        if self.kernel not in KERNELS:
            raise InputError(describe_unknown("resize kernel", self.kernel, KERNELS))
        if self.centre not in CENTRES:
            raise InputError(describe_unknown("centre", self.centre, CENTRES))
        if self.crop is not None and not 0 < self.crop <= 1:
            raise InputError(f"crop is a fraction in (0, 1] or None, not {self.crop}")
        if len(self.mean) != len(self.std) or not all(s > 0 for s in self.std):
            raise InputError(f"mean {self.mean} and std {self.std} need one value per channel, std above 0")

    @property
    def channels(self) -> int:
        """The number of channels of the images."""
        return len(self.mean)

    def for_channels(self, channels: int) -> "Preprocess":
        """Return the same convention for images of another number of channels, if all channels have one mean and std.

        Raises InputError if they differ between channels: what a new channel's would be is unknown.
        """
        if channels == self.channels:
            return self
        if len(set(self.mean)) > 1 or len(set(self.std)) > 1:
            raise InputError(
                f"mean {self.mean} and std {self.std} have {self.channels} values each, and the model takes {channels} "
                "channels; give one value per channel, or one for all"
            )
        return replace(self, mean=self.mean[:1] * channels, std=self.std[:1] * channels)

    def average_channels(self, channels: int) -> "Preprocess":
        """Return the convention with the mean of the means, and of the stds, for every one of `channels` channels.

        As timm does for a model that is adapted to another number of channels.
        """
        average = replace(self, mean=(statistics.mean(self.mean),), std=(statistics.mean(self.std),))
        return average.for_channels(channels)

    def normalize(self, images: Float[Array | np.ndarray, "... c"]) -> Float[Array, "... c"]:
        """Return (x - mean) / std of images in [0, 1]; any leading axes, channels last."""
        mean = jnp.asarray(self.mean, images.dtype)
        std = jnp.asarray(self.std, images.dtype)
        lead = (1,) * (images.ndim - 1)
        return (jnp.asarray(images) - mean.reshape(*lead, -1)) / std.reshape(*lead, -1)


@dataclass(frozen=True)
class ImagePreprocess:
    """A Preprocess at a model's image size: the way from a picture to that model's input.

    Calling it returns the input of one picture. `resize`, on the host, and `normalize`, on the device, are its steps.

    size: (height, width) in pixels.
    """

    size: tuple[int, int]
    preprocess: Preprocess = Preprocess()

    def view(self, image: Image.Image) -> Image.Image:
        """Return the part of a picture that the model sees, at the picture's own resolution and aspect ratio."""
        if self.preprocess.crop is None:
            return image
        (height, width), ((resized_width, resized_height), (left, top)) = self.size, self._place(image.size)
        left, right = _scale_span(left, width, image.width / resized_width)
        top, bottom = _scale_span(top, height, image.height / resized_height)
        return image.crop((left, top, right, bottom))

    def resize(self, picture: Picture, *, kernel: str | None = None) -> UInt8[np.ndarray, "h w c"]:
        """Return a picture at the model's size, with its number of channels, each resized on its own.

        kernel: one of KERNELS, by default the preprocess's. Raises InputError as vit_jax.channels.to_channels does.
        """
        settings = self.preprocess
        bands = split_bands(to_channels(picture, settings.channels, background=settings.background))
        resized = [np.atleast_3d(self._resize_image(band, kernel)) for band in bands]
        return resized[0] if len(resized) == 1 else np.concatenate(resized, axis=-1)

    def _resize_image(self, image: Image.Image, kernel: str | None) -> UInt8[np.ndarray, "..."]:
        (height, width), (resized, (left, top)) = self.size, self._place(image.size)
        image = image.resize(resized, KERNELS[kernel or self.preprocess.kernel])
        return np.asarray(image.crop((left, top, left + width, top + height)))

    def _place(self, image: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return the size that a picture is resized to, and the corner of the model's input in it, as (x, y)."""
        (height, width), settings = self.size, self.preprocess
        if settings.crop is None:
            return (width, height), (0, 0)
        target = math.floor(width / settings.crop), math.floor(height / settings.crop)
        resized = target if settings.squash else cover(image, target)
        halve = CENTRES[settings.centre]
        return resized, (halve(resized[0] - width), halve(resized[1] - height))

    def normalize(self, images: Float[Array | np.ndarray, "... c"]) -> Float[Array, "... c"]:
        """Return images in [0, 1] in the model's range; see Preprocess.normalize."""
        return self.preprocess.normalize(images)

    def __call__(self, image: Any) -> Float[Array, "h w c"]:
        """Return the float32 input [h, w, c] of a PIL image or a uint8 array [height, width] or [height, width, c].

        Raises InputError for anything else, and for other channels than the model takes (vit_jax.channels).
        """
        return self.normalize(jnp.asarray(self.resize(as_picture(image)), jnp.float32) / 255)
