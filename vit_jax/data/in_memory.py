"""Labelled images in memory as a Split: an array, a sequence of pictures, or a random-access data set of pairs."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from vit_jax.channels import Picture, as_picture
from vit_jax.data.dataset import Split
from vit_jax.data.decode import as_upright
from vit_jax.data.labels import parse_labels
from vit_jax.data.reading import read_each
from vit_jax.errors import InputError


class LabelledSplit(NamedTuple):
    """A split, and the names of its classes; None if its labels are bare numbers."""

    split: Split
    class_names: tuple[str, ...] | None = None


def split_images(images: Any, labels: Any, *, name: str) -> LabelledSplit:
    """Return the split of images and their labels.

    images: uint8 [N, h, w] or [N, h, w, c], or a sequence of pictures: PIL images or uint8 arrays, of any sizes.
    labels: see parse_labels. name: for messages.
    Raises InputError, naming an image, for images and labels that are none, and for unequal numbers.
    """
    if _is_array(images):
        images = np.asarray(images)
        _check_array(images, name)
    elif hasattr(images, "ndim"):
        images = list(images)  # by position, where a table's column is indexed by its row names
    elif isinstance(images, str) or not hasattr(images, "__len__") or not hasattr(images, "__getitem__"):
        raise InputError(
            f"{name}: images are {type(images).__name__}; give uint8 [N, h, w, c], or a list of PIL images or arrays"
        )
    parsed = parse_labels(labels, name)
    if len(images) != len(parsed.labels):
        raise InputError(
            f"{name}: {len(images):,} images and {len(parsed.labels):,} labels; give one label for each image"
        )
    names = _number(name, len(images))

    def open_image(index: int, *, max_value: float | None = None) -> Picture:  # always of 8 bits
        return as_upright(images[index], name=names[index])

    if not _is_array(images):
        for index, image in enumerate(images):
            as_picture(image, name=names[index])
    return LabelledSplit(Split(names, parsed.labels, open_image), parsed.class_names)


def split_items(items: Any, *, name: str) -> LabelledSplit:
    """Return the split of a random-access data set of (picture, label), whose items are all read for their labels.

    Raises InputError, naming an item, for one that is not such a pair, and for labels of different kinds.
    """
    names = _number(name, len(items))

    def read(index: int) -> tuple[Any, Any]:
        try:
            item = items[index]
        except (KeyError, IndexError) as error:
            raise InputError(f"{names[index]}: the data set has {len(names)} items but none at {index}") from error
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise InputError(f"{names[index]}: an item is (picture, label), not {type(item).__name__}")
        return item[0], item[1]

    def read_label(index: int) -> Any:
        picture, label = read(index)
        as_picture(picture, name=names[index])
        return jax.device_get(label)

    def open_image(index: int, *, max_value: float | None = None) -> Picture:  # always of 8 bits
        return as_upright(read(index)[0], name=names[index])

    parsed = parse_labels(_stack([label for _, label in read_each(range(len(names)), read_label)], name), name)
    return LabelledSplit(Split(names, parsed.labels, open_image), parsed.class_names)


def _stack(labels: Sequence[Any], name: str) -> np.ndarray:
    """Return labels of equal shapes as one array. Raises InputError for labels of different shapes or types."""
    try:
        arrays = [np.asarray(label) for label in labels]
    except ValueError as error:  # lists of different lengths
        raise InputError(f"{name}: a label is a list of lists; give labels of one length") from error
    for kind in ("shape", "dtype"):
        values = [getattr(array, kind) for array in arrays]
        if kind == "dtype":
            values = [value.kind for value in values]
        other = next((value for value in values if value != values[0]), None)
        if other is not None:
            raise InputError(f"{name}: labels have the {kind}s {values[0]} and {other}; give all the same")
    return np.array(arrays)


def _is_array(images: Any) -> bool:
    """Return whether images are one array, not an array of objects."""
    return hasattr(images, "ndim") and str(getattr(images, "dtype", "")) != "object"


def _check_array(images: np.ndarray, name: str) -> None:
    if images.dtype != np.uint8:
        raise InputError(f"{name}: images are {images.dtype}; training takes uint8, 0 to 255: {_remedy(images)}")
    if images.ndim not in (3, 4) or (len(images) and not images.size):
        raise InputError(f"{name}: images have the shape {images.shape}; give [N, h, w] or [N, h, w, c]")
    if images.ndim == 4 and images.shape[1] in (1, 3) and images.shape[3] > 4:
        raise InputError(f"{name}: images are [N, c, h, w] {images.shape}; give images.transpose(0, 2, 3, 1)")


def _remedy(images: np.ndarray) -> str:
    """Return what makes images uint8, by the range of their values."""
    if images.dtype.kind == "b":
        return "images.astype('uint8') * 255"
    if images.dtype.kind not in "iuf" or not images.size:
        return "give numbers"
    low, high = images.min(), images.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        return "replace the values that are not finite first"
    if low < 0 or high > 255:
        return f"scale their range, {low:g} to {high:g}, to 0 to 255 first"
    if images.dtype.kind != "f":
        return "images.astype('uint8') if that fits"
    return f"{'(images * 255)' if high <= 1 else 'images'}.round().astype('uint8') if that fits"


def _number(name: str, count: int) -> list[str]:
    return [f"{name} image {index}" for index in range(count)]
