"""From a picture to the array a model was trained on: resize, crop, normalise.

A `Preprocess` travels with every checkpoint, because a model fed with another kernel or mean answers differently
without saying so.
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
    """A PIL image, or uint8 array [height, width, 3], as a PIL image. Raises InputError when it is neither."""
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
    """How a picture becomes a model's input.

    size:    (height, width) in pixels.
    mean:    per channel, on the scale [0, 1].
    std:     per channel, on the scale [0, 1].
    kernel:  Pillow's resampling, antialiased as torchvision's on PIL images: one of KERNELS.
    crop:    None squashes the picture to `size` whatever its shape (the published recipe). A share in (0, 1]
             resizes the shorter side to size / crop, keeping the shape, and takes the centre (timm's crop_pct).
    """

    size: tuple[int, int]
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    kernel: str = "bilinear"
    crop: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", tuple(self.size))
        object.__setattr__(self, "mean", tuple(self.mean))
        object.__setattr__(self, "std", tuple(self.std))
        if self.kernel not in KERNELS:
            raise InputError(f"unknown resize kernel {self.kernel!r}: one of {', '.join(KERNELS)}")
        if self.crop is not None and not 0 < self.crop <= 1:
            raise InputError(f"crop is a share in (0, 1] or None, not {self.crop}")
        if len(self.mean) != len(self.std) or not all(s > 0 for s in self.std):
            raise InputError(f"mean {self.mean} and std {self.std} need one value per channel, std above 0")

    def view(self, image: Image.Image) -> Image.Image:
        """The part of a picture that the model sees, at the picture's own resolution and shape."""
        if self.crop is None:
            return image
        height, width = (self.crop * side for side in self.size)
        scale = min(image.width / self.size[1], image.height / self.size[0])
        across, down = round(scale * width), round(scale * height)
        left, top = round((image.width - across) / 2), round((image.height - down) / 2)
        return image.crop((left, top, left + across, top + down))

    def resize(self, image: Image.Image) -> UInt8[np.ndarray, "h w 3"]:
        """The picture at the model's size, as 8-bit RGB: all that has to happen on the host."""
        image = image if image.mode == "RGB" else image.convert("RGB")
        height, width = self.size
        kernel = KERNELS[self.kernel]
        if self.crop is None:
            return np.asarray(image.resize((width, height), kernel))
        scale = max(height / self.crop / image.height, width / self.crop / image.width)
        scaled = (max(width, round(image.width * scale)), max(height, round(image.height * scale)))
        image = image.resize(scaled, kernel)
        left, top = round((scaled[0] - width) / 2), round((scaled[1] - height) / 2)
        return np.asarray(image.crop((left, top, left + width, top + height)))

    def normalize(self, images: Float[Array | np.ndarray, "... c"]) -> Float[Array, "... c"]:
        """Images in [0, 1] to the model's own range, (x - mean) / std; any leading axes, channels last."""
        mean = jnp.asarray(self.mean, images.dtype)
        std = jnp.asarray(self.std, images.dtype)
        lead = (1,) * (images.ndim - 1)
        return (jnp.asarray(images) - mean.reshape(*lead, -1)) / std.reshape(*lead, -1)

    def __call__(self, image: Any) -> Float[Array, "h w 3"]:
        """A PIL image, or uint8 array [height, width, 3], to the model's float32 input [h, w, 3].

        Raises InputError when it is neither.
        """
        return self.normalize(jnp.asarray(self.resize(as_pil_image(image)), jnp.float32) / 255)
