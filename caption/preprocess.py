"""From pictures to a captioner's input: resize the longest side, normalise, pad into batches.

Agrees with the reference's validation transform (CATR, datasets/coco.py): `(w, h) * (299 / max)` in float64, truncated
to integers, so that a few sizes become 298; Pillow's bicubic; (x - 0.5) / 0.5 in float32.

Letters: B batch, h x w a picture, H x W a batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, UInt8
from PIL import Image

from vit_jax.background import WHITE, parse_colour
from vit_jax.channels import as_rgb
from vit_jax.errors import InputError
from vit_jax.preprocess import ImagePreprocess, check_max_value


class PaddedBatch(NamedTuple):
    """Pictures padded to one size. mask: True on the pictures; images are 0 elsewhere."""

    images: Float32[np.ndarray, "b H W 3"]
    mask: Bool[np.ndarray, "b H W"]


@dataclass(frozen=True)
class CaptionPreprocess:
    """How pictures become a captioner's input.

    longest:  length of the longer side in pixels; smaller pictures are enlarged.
    mean:     per channel, on the scale [0, 1].
    std:      per channel, on the scale [0, 1].
    background: the colour behind transparent pictures, a name or #rrggbb.
    max_value: the value of white in image files of more than 8 bits; see vit_jax.Preprocess.

    Raises InputError for a length below 1, an unknown colour, and for a wrong max_value, mean or std.
    """

    longest: int = 299
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    background: str = WHITE
    max_value: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", tuple(self.mean))
        object.__setattr__(self, "std", tuple(self.std))
        object.__setattr__(self, "background", parse_colour(self.background))
        check_max_value(self.max_value)
        if self.longest < 1:
            raise InputError(f"the longest side is at least 1 pixel, not {self.longest}")
        if len(self.mean) != 3 or len(self.std) != 3 or not all(s > 0 for s in self.std):
            raise InputError(f"mean {self.mean} and std {self.std} need three values each, std above 0")

    @property
    def size(self) -> tuple[int, int]:
        """Return the (height, width) that every picture fits into: pad_batch's size for one compiled function."""
        return self.longest, self.longest

    def target_size(self, width: int, height: int) -> tuple[int, int]:
        """Return (width, height) after resizing. Raises InputError when the short side would have no pixel."""
        sides = np.array((width, height), np.float64)
        scaled = sides * (self.longest / sides.max())  # in the reference's order of operations
        new_width, new_height = scaled.astype(int).tolist()
        if min(new_width, new_height) < 1:
            raise InputError(
                f"an image of {width}x{height} is too thin: no pixel of its short side is left at {self.longest}"
            )
        return new_width, new_height

    def view(self, image: Image.Image) -> Image.Image:
        """Return the part of a picture that the model sees: all of it."""
        return image

    def resize(self, image: Image.Image) -> UInt8[np.ndarray, "h w 3"]:
        """Resize the longest side, keep the aspect ratio; 8-bit RGB."""
        image = as_rgb(image, background=self.background)
        return np.asarray(image.resize(self.target_size(image.width, image.height), Image.Resampling.BICUBIC))

    def normalize(self, pixels: UInt8[np.ndarray, "... 3"]) -> Float32[np.ndarray, "... 3"]:
        """Return (x / 255 - mean) / std of 8-bit RGB, in float32."""
        return normalize_pixels(pixels, self.mean, self.std)

    def __call__(self, image: Any) -> Float32[np.ndarray, "h w 3"]:
        """Return the model's input for a PIL image or uint8 array [height, width, 3].

        Raises InputError for anything else, and for a picture that is too thin.
        """
        return self.normalize(self.resize(as_rgb(image, background=self.background)))


@dataclass(frozen=True)
class ViTPreprocess:
    """A ViT's own preprocessing, for captions: every picture fills the input size, without padding."""

    image_preprocess: ImagePreprocess

    @property
    def background(self) -> str:
        """Return the colour behind transparent pictures."""
        return self.image_preprocess.preprocess.background

    @property
    def max_value(self) -> float | None:
        """Return the value of white in image files of more than 8 bits, None if it is not stated."""
        return self.image_preprocess.preprocess.max_value

    @property
    def size(self) -> tuple[int, int]:
        """Return the (height, width) of every picture."""
        return self.image_preprocess.size

    def view(self, image: Image.Image) -> Image.Image:
        """Return the part of a picture that the model sees, at the picture's own resolution."""
        return self.image_preprocess.view(image)

    def resize(self, image: Image.Image) -> UInt8[np.ndarray, "h w 3"]:
        """Resize the picture to the model's size; 8-bit RGB."""
        return self.image_preprocess.resize(image)

    def normalize(self, pixels: UInt8[np.ndarray, "... 3"]) -> Float32[np.ndarray, "... 3"]:
        """Return (x / 255 - mean) / std of 8-bit RGB, in float32."""
        return normalize_pixels(pixels, self.image_preprocess.preprocess.mean, self.image_preprocess.preprocess.std)

    def __call__(self, image: Any) -> Float32[np.ndarray, "h w 3"]:
        """Return the model's input for a PIL image or uint8 array. Raises InputError for anything else."""
        return self.normalize(self.resize(as_rgb(image, background=self.background)))


def normalize_pixels(
    pixels: UInt8[np.ndarray, "... 3"], mean: tuple[float, ...], std: tuple[float, ...]
) -> Float32[np.ndarray, "... 3"]:
    """Return (x / 255 - mean) / std of 8-bit RGB, in float32 as in torch."""
    lead = (1,) * (pixels.ndim - 1)
    centre, scale = (np.array(value, np.float32).reshape(*lead, 3) for value in (mean, std))
    return (pixels.astype(np.float32) / np.float32(255) - centre) / scale


def pad_batch(images: Sequence[Float32[np.ndarray, "_ _ 3"]], size: tuple[int, int] | None = None) -> PaddedBatch:
    """Place normalised pictures of any size in the top left corners of one batch, padded with 0.

    size: (height, width) of the batch, so that one compiled function serves all; by default the largest picture's.

    Raises InputError for no pictures, and for one that does not fit.
    """
    if not images:
        raise InputError("no images to make a batch of")
    height, width = size or tuple(max(image.shape[side] for image in images) for side in (0, 1))
    batch = np.zeros((len(images), height, width, 3), np.float32)
    mask = np.zeros((len(images), height, width), bool)
    for row, image in enumerate(images):
        h, w = image.shape[:2]
        if h > height or w > width:
            raise InputError(f"an image of {w}x{h} does not fit a batch of {width}x{height}; resize it first")
        batch[row, :h, :w] = image
        mask[row, :h, :w] = True
    return PaddedBatch(batch, mask)
