"""What the reference draws for every training picture of a captioner: quarter turns, colours, mirroring.

Source: CATR's train_transform (datasets/coco.py), in its order: RandomRotation over [0, 90, 180, 270] degrees, the
longest side to its length, ColorJitter by these ranges in a random order, RandomHorizontalFlip. On 8-bit pictures by
Pillow, as torchvision's PIL backend does it; the random numbers are others.
Turning and mirroring change what "left of" means: for captions that tell sides, set angles=(0,) and flip=0.0.
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
ENHANCERS: dict[str, Any] = {  # each blends with a picture that lacks the quality: black, mean grey, greyscale
    "brightness": ImageEnhance.Brightness,
    "contrast": ImageEnhance.Contrast,
    "saturation": ImageEnhance.Color,
}


@dataclass(frozen=True)
class CaptionAugment:
    """What is drawn for every training picture; the defaults are the reference's.

    angles:  quarter turns in degrees, counter-clockwise, one of them drawn; the sides change places with the picture.
    brightness, contrast, saturation: the (least, most) factor, drawn uniformly; 1 changes nothing.
    flip:    the probability of mirroring left and right.
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
    """Turn counter-clockwise by 0, 90, 180 or 270 degrees, whole: nothing is cut off or filled in."""
    return image.transpose(TURNS[degrees]) if degrees else image


def enhance(image: Image.Image, quality: str, factor: float) -> Image.Image:
    """Brightness, contrast or saturation by a factor, as torchvision's adjust_* on a PIL picture."""
    return ENHANCERS[quality](image).enhance(factor)


def jitter(image: Image.Image, settings: CaptionAugment, rng: np.random.Generator) -> Image.Image:
    """ColorJitter: the three adjustments at drawn factors, in a drawn order."""
    factors = {name: float(rng.uniform(*getattr(settings, name))) for name in ENHANCERS}
    for place in rng.permutation(len(ENHANCERS)):
        name = list(ENHANCERS)[place]
        image = enhance(image, name, factors[name])
    return image


def augment_image(
    image: Image.Image,
    preprocess: CaptionPreprocess | ViTPreprocess,
    settings: CaptionAugment,
    rng: np.random.Generator,
) -> Float32[np.ndarray, "h w 3"]:
    """A picture as a captioner's input, augmented by draws from the generator: the same for the same state of it.

    Raises InputError for a picture too thin to resize.
    """
    image = image if image.mode == "RGB" else image.convert("RGB")
    image = turn(image, settings.angles[rng.integers(len(settings.angles))])
    image = jitter(Image.fromarray(preprocess.resize(image)), settings, rng)
    if rng.uniform() < settings.flip:
        image = ImageOps.mirror(image)
    return preprocess.normalize(np.asarray(image))
