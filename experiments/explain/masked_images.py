"""Images with masks that mark the object, in batches for a model."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from vit_jax import InputError, VisionTransformer
from vit_jax.channels import to_rgb
from vit_jax.data.batches import pad_batch_to
from vit_jax.data.decode import open_picture

OBJECT, BACKGROUND, NOT_SCORED = 1, 2, 3  # values of a mask
EXTENSIONS = (".png", ".bmp", ".gif", ".tif", ".tiff")  # lossless formats


@dataclass(frozen=True)
class MaskedImage:
    """pixels: the model's input before normalisation, uint8 [h, w, c]. labels: the mask at that size, [h, w]."""

    pixels: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class MaskedBatch:
    """A batch of masked images.

    images:  normalised, [B, h, w, c]
    targets: the predicted classes, [B]
    labels:  the masks, [B, h, w]
    count:   number of images; the rest of the rows is padding
    """

    images: Any
    targets: np.ndarray
    labels: np.ndarray
    count: int


def find_mask(image: Path, masks: Path) -> Path:
    """Return the mask with an image's name. Raises InputError if there is none."""
    candidates = [masks / f"{image.stem}{extension}" for extension in EXTENSIONS]
    path = next((path for path in candidates if path.is_file()), None)
    if path is None:
        raise InputError(f"{masks}: no mask for {image.name}; add {image.stem}.png")
    return path


def _read_mask(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as mask:
            return np.asarray(mask.convert("L") if mask.mode not in ("L", "P") else mask)
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"{path}: not a readable image ({error})") from error


def open_masked_image(image: Path, mask: Path, model: VisionTransformer) -> MaskedImage:
    """Open an image and its mask at the model's size.

    Raises InputError for a corrupt file, channels that do not fit, a mask of another size than the image, or one
    with other values.
    """
    preprocess = model.config.image_preprocess
    picture = open_picture(image, model.config.in_channels)
    labels = _read_mask(mask)
    width, height = to_rgb(picture).size
    if labels.shape != (height, width):
        raise InputError(f"{mask}: {labels.shape[1]}x{labels.shape[0]}, but {image.name} is {width}x{height}")
    if not set(np.unique(labels)) <= {OBJECT, BACKGROUND, NOT_SCORED}:
        raise InputError(f"{mask}: values must be 1 (object), 2 (background) or 3 (not scored)")
    one_channel = replace(preprocess, preprocess=preprocess.preprocess.average_channels(1))
    resized = one_channel.resize(Image.fromarray(labels.astype(np.uint8)), kernel="nearest")
    return MaskedImage(preprocess.resize(picture), resized[..., 0])


def make_batches(model: VisionTransformer, masked: list[MaskedImage], batch_size: int) -> list[MaskedBatch]:
    """Normalise the images and predict their classes, in batches; the last batch repeats its last image."""
    normalize = model.config.preprocess.normalize
    prepare = jax.jit(lambda pixels: normalize(pixels.astype("float32") / 255))
    predict = jax.jit(lambda m, x: m(x).argmax(axis=1))
    batches = []
    for start in range(0, len(masked), batch_size):
        part = masked[start : start + batch_size]
        padded, _ = pad_batch_to(min(batch_size, len(masked)), part, part[-1])
        images = prepare(np.stack([item.pixels for item in padded]))
        targets = np.asarray(predict(model, images))
        batches.append(MaskedBatch(images, targets, np.stack([item.labels for item in padded]), len(part)))
    return batches
