"""Augmentation of a captioner's training images as in the reference: quarter turns, colours, horizontal flips.

Source: CATR's train_transform (datasets/coco.py), in its order: RandomRotation over [0, 90, 180, 270] degrees, resizing
the longest side, ColorJitter by these ranges in a random order, RandomHorizontalFlip. On 8-bit images by Pillow, as in
torchvision's PIL backend; the random numbers differ.
Rotations and flips change what "left of" means: for captions that mention sides, set angles=(0,) and flip=0.0.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32
from PIL import Image, ImageEnhance, ImageOps

from caption.preprocess import CaptionPreprocess, ViTPreprocess
from vit_jax import InputError
from vit_jax.settings import check_settings, setting

RANGE = ("MIN", "MAX")
TURNS = {  # degrees counter-clockwise
    90: Image.Transpose.ROTATE_90,
    180: Image.Transpose.ROTATE_180,
    270: Image.Transpose.ROTATE_270,
}
ENHANCERS: dict[str, Any] = {  # each blends with a degenerate image: black, mean grey, greyscale
    "brightness": ImageEnhance.Brightness,
    "contrast": ImageEnhance.Contrast,
    "saturation": ImageEnhance.Color,
}


@dataclass(frozen=True)
class CaptionAugment:
    """Random augmentations of every training image. The defaults are the reference's."""

    angles: tuple[int, ...] = setting(
        (0, 90, 180, 270), "rotations to choose from, in degrees counter-clockwise; a quarter turn swaps the sides",
        metavar="DEGREES",
    )  # fmt: skip
    brightness: tuple[float, float] = setting(
        (0.5, 1.3), "factor of brightness, uniform; 1 changes nothing", interval="[0, inf)", metavar=RANGE
    )
    contrast: tuple[float, float] = setting((0.8, 1.5), "factor of contrast", interval="[0, inf)", metavar=RANGE)
    saturation: tuple[float, float] = setting((0.2, 1.5), "factor of saturation", interval="[0, inf)", metavar=RANGE)
    flip: float = setting(0.5, "probability of a horizontal flip", interval="[0, 1]")

    def __post_init__(self) -> None:
        for name in ("angles", *ENHANCERS):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        check_settings(self)
        if not self.angles or not set(self.angles) <= {0, *TURNS}:
            raise InputError(f"angles are some of 0, 90, 180 and 270 degrees, not {self.angles}")
        for name in ENHANCERS:
            low, high = getattr(self, name)
            if low > high:
                raise InputError(f"{name} is (minimum, maximum), not {(low, high)}")


def turn(image: Image.Image, degrees: int) -> Image.Image:
    """Rotate counter-clockwise by 0, 90, 180 or 270 degrees, without cropping or filling."""
    return image.transpose(TURNS[degrees]) if degrees else image


def enhance(image: Image.Image, quality: str, factor: float) -> Image.Image:
    """Scale brightness, contrast or saturation by a factor, as torchvision's adjust_* on a PIL image."""
    return ENHANCERS[quality](image).enhance(factor)


def jitter(image: Image.Image, settings: CaptionAugment, rng: np.random.Generator) -> Image.Image:
    """Apply ColorJitter: the three adjustments by random factors, in random order."""
    factors = {name: float(rng.uniform(*getattr(settings, name))) for name in ENHANCERS}
    for position in rng.permutation(len(ENHANCERS)):
        name = list(ENHANCERS)[position]
        image = enhance(image, name, factors[name])
    return image


def augment_image(
    image: Image.Image,
    preprocess: CaptionPreprocess | ViTPreprocess,
    settings: CaptionAugment,
    rng: np.random.Generator,
) -> Float32[np.ndarray, "h w 3"]:
    """Augment an image with random numbers from the generator, and return it as a captioner's input.

    Raises InputError for an image too thin to resize.
    """
    image = image if image.mode == "RGB" else image.convert("RGB")
    image = turn(image, settings.angles[rng.integers(len(settings.angles))])
    image = jitter(Image.fromarray(preprocess.resize(image)), settings, rng)
    if rng.uniform() < settings.flip:
        image = ImageOps.mirror(image)
    return preprocess.normalize(np.asarray(image))
