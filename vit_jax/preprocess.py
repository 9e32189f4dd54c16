"""From a picture to a model's input: resize, crop, normalise.

Every checkpoint carries its Preprocess: another kernel or mean changes a model's predictions without any error.
"""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8
from PIL import Image

from vit_jax.errors import InputError

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


def as_pil_image(image: Any) -> Image.Image:
    """Return a PIL image, or a uint8 array [height, width, 3], as a PIL image. Raises InputError for anything else."""
    if isinstance(image, (np.ndarray, jax.Array)):
        array = np.asarray(image)
        if array.dtype != np.uint8 or array.ndim != 3 or array.shape[-1] != 3:
            raise InputError(f"an image array is uint8 [height, width, 3], not {array.dtype} {array.shape}")
        image = Image.fromarray(array)
    if not isinstance(image, Image.Image):
        raise InputError(f"not an image: {type(image).__name__}; give a PIL image or a uint8 array")
    return image


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


@dataclass(frozen=True)
class Preprocess:
    """The input convention that weights were trained with; the size is the model's own, see ImagePreprocess.

    mean, std: per channel, on the scale [0, 1].
    kernel:    Pillow's resampling, antialiased as torchvision's on PIL images: one of KERNELS.
    crop:      None resizes to the model's size without keeping the aspect ratio (PyTorch-Pretrained-ViT's recipe). A
               fraction in (0, 1] resizes the shorter side to floor(size / crop) and takes the centre (timm's crop_pct).
    squash:    with a crop: resize both sides to floor(size / crop), without keeping the aspect ratio, before the
               centre is taken (Hugging Face's DeiT, timm's crop_mode "squash").
    centre:    with a crop: how an odd margin is halved, one of CENTRES.

    Raises InputError for an unknown kernel or centre and for numbers out of range.
    """

    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    kernel: str = "bilinear"
    crop: float | None = None
    squash: bool = False
    centre: str = "round"

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", tuple(self.mean))
        object.__setattr__(self, "std", tuple(self.std))
        if self.kernel not in KERNELS:
            raise InputError(f"unknown resize kernel {self.kernel!r}: one of {', '.join(KERNELS)}")
        if self.centre not in CENTRES:
            raise InputError(f"unknown centre {self.centre!r}: one of {', '.join(CENTRES)}")
        if self.crop is not None and not 0 < self.crop <= 1:
            raise InputError(f"crop is a fraction in (0, 1] or None, not {self.crop}")
        if len(self.mean) != len(self.std) or not all(s > 0 for s in self.std):
            raise InputError(f"mean {self.mean} and std {self.std} need one value per channel, std above 0")

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

    def resize(self, image: Image.Image, *, kernel: str | None = None) -> UInt8[np.ndarray, "h w 3"]:
        """Return a picture at the model's size, as 8-bit RGB. kernel: one of KERNELS, by default the preprocess's."""
        image = image if image.mode == "RGB" else image.convert("RGB")
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

    def __call__(self, image: Any) -> Float[Array, "h w 3"]:
        """Return the float32 input [h, w, 3] of a PIL image or a uint8 array [height, width, 3].

        Raises InputError for anything else.
        """
        return self.normalize(jnp.asarray(self.resize(as_pil_image(image)), jnp.float32) / 255)
