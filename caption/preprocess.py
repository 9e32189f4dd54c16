"""From pictures to a captioner's input: the longest side to a fixed length, normalised, padded into batches.

Agrees with the reference's validation transform (CATR, datasets/coco.py): `(w, h) * (299 / max)` in float64, cut to
whole pixels, so that a few sizes end at 298; Pillow's bicubic; (x - 0.5) / 0.5 in float32.
Key: B batch, h w a picture's own size, H W the batch's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, UInt8
from PIL import Image

from vit_jax.errors import InputError
from vit_jax.preprocess import Preprocess, as_pil_image


class PaddedBatch(NamedTuple):
    """Pictures of one size. mask: True where there is a picture; images are 0 elsewhere."""

    images: Float32[np.ndarray, "b H W 3"]
    mask: Bool[np.ndarray, "b H W"]


@dataclass(frozen=True)
class CaptionPreprocess:
    """How a picture becomes a captioner's input.

    longest:  the longer side in pixels; smaller pictures are enlarged.
    mean:     per channel, on the scale [0, 1].
    std:      per channel, on the scale [0, 1].
    """

    longest: int = 299
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", tuple(self.mean))
        object.__setattr__(self, "std", tuple(self.std))
        if self.longest < 1:
            raise InputError(f"the longest side is at least 1 pixel, not {self.longest}")
        if len(self.mean) != 3 or len(self.std) != 3 or not all(s > 0 for s in self.std):
            raise InputError(f"mean {self.mean} and std {self.std} need three values each, std above 0")

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) that every picture fits into: pad_batch's size for one compiled function."""
        return self.longest, self.longest

    def target_size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) after resizing. Raises InputError for a picture so thin that nothing would be left."""
        sides = np.array((width, height), np.float64)
        across, down = (sides * (self.longest / sides.max())).astype(int).tolist()  # the reference's own operations
        if min(across, down) < 1:
            raise InputError(
                f"an image of {width}x{height} is too thin: its short side vanishes when the long one is {self.longest}"
            )
        return across, down

    def view(self, image: Image.Image) -> Image.Image:
        """The part of a picture that the model sees: all of it."""
        return image

    def resize(self, image: Image.Image) -> UInt8[np.ndarray, "h w 3"]:
        """The picture with its longest side as it should be, its shape kept, as 8-bit RGB."""
        image = image if image.mode == "RGB" else image.convert("RGB")
        return np.asarray(image.resize(self.target_size(image.width, image.height), Image.Resampling.BICUBIC))

    def normalize(self, pixels: UInt8[np.ndarray, "... 3"]) -> Float32[np.ndarray, "... 3"]:
        """8-bit RGB to (x / 255 - mean) / std, in float32 as torch does it."""
        return normalize_pixels(pixels, self.mean, self.std)

    def __call__(self, image: Any) -> Float32[np.ndarray, "h w 3"]:
        """A PIL image, or uint8 array [height, width, 3], to the model's input.

        Raises InputError when it is neither, or too thin.
        """
        return self.normalize(self.resize(as_pil_image(image)))


@dataclass(frozen=True)
class ViTPreprocess:
    """A ViT's own preprocessing, for captions: every picture fills `of.size`, and nothing is padded."""

    of: Preprocess

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of every picture."""
        return self.of.size

    def view(self, image: Image.Image) -> Image.Image:
        """The part of a picture that the model sees, at the picture's own resolution."""
        return self.of.view(image)

    def resize(self, image: Image.Image) -> UInt8[np.ndarray, "h w 3"]:
        """The picture at the model's size, as 8-bit RGB."""
        return self.of.resize(image)

    def normalize(self, pixels: UInt8[np.ndarray, "... 3"]) -> Float32[np.ndarray, "... 3"]:
        """8-bit RGB to the ViT's own range, in float32."""
        return normalize_pixels(pixels, self.of.mean, self.of.std)

    def __call__(self, image: Any) -> Float32[np.ndarray, "h w 3"]:
        """A PIL image, or uint8 array, to the model's input. Raises InputError when it is neither."""
        return self.normalize(self.resize(as_pil_image(image)))


def normalize_pixels(
    pixels: UInt8[np.ndarray, "... 3"], mean: tuple[float, ...], std: tuple[float, ...]
) -> Float32[np.ndarray, "... 3"]:
    """8-bit RGB to (x / 255 - mean) / std, in float32 as torch does it."""
    lead = (1,) * (pixels.ndim - 1)
    centre, scale = (np.array(value, np.float32).reshape(*lead, 3) for value in (mean, std))
    return (pixels.astype(np.float32) / np.float32(255) - centre) / scale


def pad_batch(images: Sequence[Float32[np.ndarray, "_ _ 3"]], size: tuple[int, int] | None = None) -> PaddedBatch:
    """Pictures of any sizes in the top left corners of one batch, padded with 0 after normalising.

    size: (height, width) of the batch, so that one compiled function serves all; else the largest there is.
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
