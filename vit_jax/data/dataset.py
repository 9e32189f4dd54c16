"""The data set type: labelled images in two splits, one for training and one for validation."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int32

from vit_jax.channels import Picture
from vit_jax.data.decode import open_picture
from vit_jax.errors import InputError

Labels = Int32[np.ndarray, " count"] | Bool[np.ndarray, "count classes"]


@dataclass(frozen=True)
class Split:
    """Labelled images.

    names:   for messages and reports: the path of a file, or the number of a record.
    labels:  indices into the class names of the data set; or, for images with several labels, which classes each has.
    open:    the image at an index, upright, with its own channels; raises CorruptImageError. For a model that states a
             max_value (Preprocess), it is called with this keyword too: see open_picture.
    """

    names: Sequence[str]
    labels: Labels
    open: Callable[..., Picture]

    @classmethod
    def from_files(cls, files: Sequence[str | Path], labels: np.ndarray | None = None) -> "Split":
        """Return the split of these image files; without labels, every label is 0."""
        if labels is None:
            labels = np.zeros(len(files), np.int32)

        def open_image(index: int, *, max_value: float | None = None) -> Picture:
            return open_picture(files[index], max_value=max_value)

        return cls([str(file) for file in files], labels, open_image)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def is_multi_label(self) -> bool:
        """Whether an image has a set of labels in place of one."""
        return self.labels.ndim == 2

    def take(self, indices: Sequence[int] | np.ndarray) -> "Split":
        """Return the split of the images at these indices, in this order."""
        subset = [int(i) for i in indices]
        names = [self.names[i] for i in subset]
        return replace(self, names=names, labels=self.labels[subset], open=partial(_open_selected, self.open, subset))


def _open_selected(open_image: Callable[..., Picture], indices: Sequence[int], index: int, **options: Any) -> Picture:
    return open_image(indices[index], **options)


def join_splits(first: Split, second: Split) -> Split:
    """Return the images of one split, then those of another one with the same classes."""
    count = len(first)

    def open_image(index: int, **options: Any) -> Picture:
        return first.open(index, **options) if index < count else second.open(index - count, **options)

    return Split([*first.names, *second.names], np.concatenate([first.labels, second.labels]), open_image)


@dataclass(frozen=True)
class Dataset:
    """A data set: its class names and its two splits. root: the folder of its files, whose paths are their names."""

    name: str
    class_names: tuple[str, ...]
    train: Split
    val: Split
    root: str | None = None


def hold_out(split: Split, fraction: float, seed: int) -> tuple[Split, Split]:
    """Divide a split into (rest, holdout), with `fraction` of every class in the holdout; `seed` decides which.

    Each class with two or more images has at least one on either side. An image with several labels counts for its
    rarest class, and one without labels for a class of its own.
    """
    rng = np.random.default_rng(seed)
    rest: list[int] = []
    holdout: list[int] = []
    labels = rarest_labels(split.labels) if split.is_multi_label else split.labels
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        count = min(max(1, round(fraction * len(members))), len(members) - 1)
        holdout += members[:count].tolist()
        rest += members[count:].tolist()
    return split.take(sorted(rest)), split.take(sorted(holdout))


def rarest_labels(labels: Bool[np.ndarray, "count classes"]) -> Int32[np.ndarray, " count"]:
    """Return the rarest class of each image, -1 for an image without labels."""
    rank = np.argsort(np.argsort(labels.sum(axis=0), kind="stable"))  # 0 is the rarest
    ranks = np.where(labels, rank, len(rank))
    return np.where(labels.any(axis=1), ranks.argmin(axis=1), -1).astype(np.int32)


def multi_hot(labels: Sequence[Sequence[str]], class_names: Sequence[str]) -> Bool[np.ndarray, "count classes"]:
    """Return which of the classes each image has, given the names of its classes."""
    index = {name: i for i, name in enumerate(class_names)}
    hot = np.zeros((len(labels), len(class_names)), np.bool_)
    for row, names in enumerate(labels):
        hot[row, [index[name] for name in names]] = True
    return hot


def class_indices(classes: Sequence[str], class_names: Sequence[str]) -> Int32[np.ndarray, " count"]:
    """Return the index of each class in class_names."""
    index = {name: i for i, name in enumerate(class_names)}
    return np.array([index[name] for name in classes], np.int32)


def check_classes(train: Sequence[str], val: Sequence[str], source: str) -> tuple[str, ...]:
    """Return the sorted class names of the training images, given each image's class.

    Prints a line for classes that differ in upper and lower case only, which may be one.
    Raises InputError naming `source` for fewer than two classes, and for a class that only validation has.
    """
    counts = Counter(train)
    if len(counts) < 2:
        raise InputError(f"{source}: only one class ({next(iter(counts))}); a classifier needs two or more")
    unseen = sorted(set(val) - set(counts))
    if unseen:
        raise InputError(f"{source}: class {unseen[0]} is in the validation images but not in the training ones")
    names = tuple(sorted(counts))
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[name.casefold()].append(name)
    for group in groups.values():
        if len(group) > 1:
            print(f"{source}: {' and '.join(group)} are different classes, which differ in upper and lower case only")
    return names
