"""From a picture to a model's input: resize, crop, normalise.

Every checkpoint carries its Preprocess: another kernel or mean changes a model's predictions without any error.
"""

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


@dataclass(frozen=True)
class Preprocess:
    """The input convention that weights were trained with; the size is the model's own, see ImagePreprocess.

    mean, std: per channel, on the scale [0, 1].
    kernel:    Pillow's resampling, antialiased as torchvision's on PIL images: one of KERNELS.
    crop:      None resizes to the model's size without keeping the aspect ratio (PyTorch-Pretrained-ViT's recipe). A
               fraction in (0, 1] resizes the shorter side to size / crop and takes the centre (timm's crop_pct).

    Raises InputError for an unknown kernel and for numbers out of range.
    """

    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    kernel: str = "bilinear"
    crop: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", tuple(self.mean))
        object.__setattr__(self, "std", tuple(self.std))
        if self.kernel not in KERNELS:
            raise InputError(f"unknown resize kernel {self.kernel!r}: one of {', '.join(KERNELS)}")
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
        crop = self.preprocess.crop
        if crop is None:
            return image
        height, width = (crop * side for side in self.size)
        scale = min(image.width / self.size[1], image.height / self.size[0])
        view_width, view_height = round(scale * width), round(scale * height)
        left, top = round((image.width - view_width) / 2), round((image.height - view_height) / 2)
        return image.crop((left, top, left + view_width, top + view_height))

    def resize(self, image: Image.Image, *, kernel: str | None = None) -> UInt8[np.ndarray, "h w 3"]:
        """Return a picture at the model's size, as 8-bit RGB. kernel: one of KERNELS, by default the preprocess's."""
        image = image if image.mode == "RGB" else image.convert("RGB")
        height, width = self.size
        resampling, crop = KERNELS[kernel or self.preprocess.kernel], self.preprocess.crop
        if crop is None:
            return np.asarray(image.resize((width, height), resampling))
        scale = max(height / crop / image.height, width / crop / image.width)
        scaled = (max(width, round(image.width * scale)), max(height, round(image.height * scale)))
        image = image.resize(scaled, resampling)
        left, top = round((scaled[0] - width) / 2), round((scaled[1] - height) / 2)
        return np.asarray(image.crop((left, top, left + width, top + height)))

    def normalize(self, images: Float[Array | np.ndarray, "... c"]) -> Float[Array, "... c"]:
        """Return images in [0, 1] in the model's range; see Preprocess.normalize."""
        return self.preprocess.normalize(images)

    def __call__(self, image: Any) -> Float[Array, "h w 3"]:
        """Return the float32 input [h, w, 3] of a PIL image or a uint8 array [height, width, 3].

        Raises InputError for anything else.
        """
        return self.normalize(jnp.asarray(self.resize(as_pil_image(image)), jnp.float32) / 255)
