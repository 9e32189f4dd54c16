"""The split of a data set as a file: which image trains, which validates, with its label and size.

A run keeps its split, so that images which are added to the data later never move one from training to validation.
"""

import itertools
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vit_jax.data.dataset import Dataset, Split, join_splits
from vit_jax.errors import InputError
from vit_jax.json_files import describe_malformed, read_compressed_json, write_compressed_json

FORMAT = "vit_jax_split/1"


class StoredImages(NamedTuple):
    """Images of a split.

    names:  relative to the data set's root.
    labels: class indices, or a list of them for each image with several labels.
    sizes:  of the files, in bytes; None for an image that is no file.
    """

    names: list[str]
    labels: list[Any]
    sizes: list[int | None]


@dataclass(frozen=True)
class StoredSplit:
    """A data set's class names and its images: for training, for validation, and left out because unreadable."""

    class_names: tuple[str, ...]
    train: StoredImages
    val: StoredImages
    skipped: StoredImages

    @property
    def images(self) -> StoredImages:
        """All images: of training, of validation, and skipped."""
        parts: tuple[Any, ...] = (self.train, self.val, self.skipped)
        return StoredImages(*(list(itertools.chain(*columns)) for columns in zip(*parts, strict=True)))


def image_ids(split: Split, root: str | None) -> list[str]:
    """Return each image's name relative to `root`, with "/" between its parts; the name itself outside of it."""
    if root is None:
        return list(split.names)
    prefix = os.path.join(root, "")
    return [name.removeprefix(prefix).replace(os.sep, "/") for name in split.names]


def record_split(data: Dataset, *, train: Split | None = None, val: Split | None = None) -> StoredSplit:
    """Return the split of a data set, to be stored.

    train, val: the readable images of the two splits, if not all of them are; the others are recorded as skipped.
    """
    kept = (data.train if train is None else train, data.val if val is None else val)
    skipped = []
    for split, readable in zip((data.train, data.val), kept, strict=True):
        names = set(readable.names)
        skipped.append(split.take([i for i, name in enumerate(split.names) if name not in names]))
    return StoredSplit(data.class_names, *(_store_images(split, data.root) for split in (*kept, join_splits(*skipped))))


def _store_images(split: Split, root: str | None) -> StoredImages:
    sizes = [None if root is None else _file_size(name) for name in split.names]
    if split.is_multi_label:
        return StoredImages(image_ids(split, root), [np.flatnonzero(row).tolist() for row in split.labels], sizes)
    return StoredImages(image_ids(split, root), split.labels.tolist(), sizes)


def _file_size(name: str) -> int | None:
    try:
        return os.stat(name).st_size
    except OSError:  # reading the image reports it
        return None


def restore_split(data: Dataset, stored: StoredSplit) -> Dataset:
    """Return a data set, whose images are those of a stored split, divided as that split divides them."""
    both = join_splits(data.train, data.val)
    position = {name: i for i, name in enumerate(image_ids(both, data.root))}
    train, val = (both.take([position[name] for name in images.names]) for images in (stored.train, stored.val))
    return replace(data, train=train, val=val)


class KeptSplit(NamedTuple):
    """A data set whose known images keep their side. known, new: their numbers."""

    data: Dataset
    known: int
    new: int


def keep_split(data: Dataset, stored: StoredSplit) -> KeptSplit:
    """Return a data set, which may have grown, in which the images of a stored split stay where they were.

    New images, and those that the stored split skipped, stay on the side that `data` gives them.
    """
    side = dict.fromkeys(stored.train.names, 0) | dict.fromkeys(stored.val.names, 1)
    both = join_splits(data.train, data.val)
    ids = image_ids(both, data.root)
    default = np.repeat([0, 1], [len(data.train), len(data.val)])
    sides = np.array([side.get(name, old) for name, old in zip(ids, default.tolist(), strict=True)], np.int8)
    train, val = (both.take(np.flatnonzero(sides == which)) for which in (0, 1))
    known = sum(name in side for name in ids)
    return KeptSplit(replace(data, train=train, val=val), known, len(ids) - known)


def write_split(path: Path, split: StoredSplit) -> None:
    """Write a split as compressed JSON, atomically."""
    parts = {name: getattr(split, name)._asdict() for name in ("train", "val", "skipped")}
    write_compressed_json(path, FORMAT, {"class_names": split.class_names, **parts})


def read_split(path: Path) -> StoredSplit:
    """Read what write_split wrote. Raises InputError naming a file that is damaged or of another format."""
    stored = read_compressed_json(path, FORMAT)
    try:
        parts = [StoredImages(**stored[name]) for name in ("train", "val", "skipped")]
        return StoredSplit(tuple(stored["class_names"]), *parts)
    except (KeyError, TypeError) as error:
        problem = describe_malformed(error)
        raise InputError(f"{path}: damaged ({problem}); restore the file, or start a new run") from error
