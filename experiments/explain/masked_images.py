"""Images with masks that mark the object, in batches for a model."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from experiments.common.pictures import ImagePath
from vit_jax import InputError, VisionTransformer
from vit_jax.channels import to_rgb
from vit_jax.data.batches import pad_batch_to
from vit_jax.data.decode import decoding_errors, open_model_picture
from vit_jax.progress import write_line

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

    items:   the images' positions among all; the rest of the rows is padding
    images:  normalised, [B, h, w, c]
    targets: the predicted classes, [B]
    labels:  the masks, [B, h, w]
    """

    items: np.ndarray
    images: Any
    targets: np.ndarray
    labels: np.ndarray


def find_masks(images: Sequence[ImagePath], masks: Path) -> list[Path]:
    """Return the masks of images: the file in `masks` with the image's relative path, but for its suffix.

    If no image in a folder has a mask in such a folder, leading folders may be missing from the paths of the masks.
    Raises InputError for an image without a mask, and for a mask that fits two images.
    """
    stems = [image.result.parent / image.file.stem for image in images]
    found = [_find_mask(masks / stem) for stem in stems]
    if not any(mask and len(stem.parts) > 1 for stem, mask in zip(stems, found, strict=True)):
        found = [next(filter(None, (_find_mask(masks / end) for end in _path_ends(stem))), None) for stem in stems]
    by_mask: dict[Path, Path] = {}
    for stem, mask in zip(stems, found, strict=True):
        if mask is None:
            raise InputError(f"{masks}: no mask for {stem}; add {stem}.png")
        if by_mask.setdefault(mask, stem) != stem:
            raise InputError(f"{mask}: the mask of {by_mask[mask]} or of {stem}? Give each its own, such as {stem}.png")
    return [mask for mask in found if mask is not None]


def _find_mask(path: Path) -> Path | None:
    """Return the mask at a path without suffix, None if there is none."""
    candidates = (Path(f"{path}{extension}") for extension in EXTENSIONS)
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def _path_ends(path: Path) -> list[Path]:
    """Return a relative path, and the path without 1, 2, ... of its leading folders."""
    return [Path(*path.parts[start:]) for start in range(len(path.parts))]


def _read_mask(path: Path) -> np.ndarray:
    with decoding_errors(str(path)), Image.open(path) as mask:
        keeps_values = mask.mode in ("L", "P") or mask.mode.startswith("I")
        return np.asarray(mask if keeps_values else mask.convert("L"))


def open_masked_image(image: Path, mask: Path, model: VisionTransformer) -> MaskedImage:
    """Open an image and its mask at the model's size.

    Raises InputError for a corrupt file, channels that do not fit, a mask of another size than the image, or one
    with other values.
    """
    preprocess = model.config.image_preprocess
    picture = open_model_picture(image, model.config.preprocess)
    labels = _read_mask(mask)
    width, height = to_rgb(picture).size
    if labels.shape != (height, width):
        raise InputError(f"{mask}: {labels.shape[1]}x{labels.shape[0]}, but {image.name} is {width}x{height}")
    if not set(np.unique(labels)) <= {OBJECT, BACKGROUND, NOT_SCORED}:
        raise InputError(f"{mask}: values must be 1 (object), 2 (background) or 3 (not scored)")
    one_channel = replace(preprocess, preprocess=preprocess.preprocess.average_channels(1))
    resized = one_channel.resize(Image.fromarray(labels.astype(np.uint8)), kernel="nearest")
    return MaskedImage(preprocess.resize(picture), resized[..., 0])


def open_masked_images(
    images: Sequence[ImagePath], masks: Path, model: VisionTransformer
) -> tuple[list[ImagePath], list[MaskedImage]]:
    """Open images and their masks; return the images whose masks have an object, and those opened.

    Reports the others on stderr. Raises InputError if no mask has an object, and as find_masks and open_masked_image.
    """
    scored: list[ImagePath] = []
    opened: list[MaskedImage] = []
    for image, mask in zip(images, find_masks(images, masks), strict=True):
        masked = open_masked_image(image.file, mask, model)
        if (masked.labels == OBJECT).any():
            scored.append(image)
            opened.append(masked)
        else:
            write_line(f"skipped: {mask}: no object (value {OBJECT}) at the model's size; {image.file} is not scored")
    if not opened:
        raise InputError(f"{masks}: no mask has an object (value {OBJECT})")
    return scored, opened


def iterate_batches(
    model: VisionTransformer, masked: Sequence[MaskedImage], items: np.ndarray, batch_size: int
) -> Iterator[MaskedBatch]:
    """Yield these of the images, normalised and with their predicted classes; the last batch repeats its last image."""
    normalize = model.config.preprocess.normalize
    prepare = jax.jit(lambda pixels: normalize(pixels.astype("float32") / 255))
    predict = jax.jit(lambda m, x: m(x).argmax(axis=1))
    for start in range(0, len(items), batch_size):
        rows = items[start : start + batch_size]
        part = [masked[item] for item in rows.tolist()]
        padded, _ = pad_batch_to(min(batch_size, len(masked)), part, part[-1])
        images = prepare(np.stack([item.pixels for item in padded]))
        targets = np.asarray(predict(model, images))
        yield MaskedBatch(rows, images, targets, np.stack([item.labels for item in padded]))
