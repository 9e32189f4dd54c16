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
    """Random augmentations of every training image. The defaults are the reference's.

    angles:  rotations in degrees, counter-clockwise, with equal probability; a quarter turn swaps height and width.
    brightness, contrast, saturation: the (least, most) factor, uniform; 1 leaves the image unchanged.
    flip:    the probability of a horizontal flip.
    """

    angles: tuple[int, ...] = (0, 90, 180, 270)
    brightness: tuple[float, float] = (0.5, 1.3)
    contrast: tuple[float, float] = (0.8, 1.5)
    saturation: tuple[float, float] = (0.2, 1.5)
    flip: float = 0.5

    def __post_init__(self) -> None:
        for name in ("angles", *ENHANCERS):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not self.angles or not set(self.angles) <= {0, *TURNS}:
            raise InputError(f"angles are some of 0, 90, 180 and 270 degrees, not {self.angles}")
        for name in ENHANCERS:
            value = getattr(self, name)
            if not (len(value) == 2 and 0 <= value[0] <= value[1]):
                raise InputError(f"{name} is (least, most), from 0 up, not {value}")
        if not 0 <= self.flip <= 1:
            raise InputError(f"flip is a probability in [0, 1], not {self.flip}")


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
