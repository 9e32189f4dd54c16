"""The data set type: labelled images in two splits, one for training and one for validation."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Int32

from vit_jax.channels import Picture
from vit_jax.data.decode import open_picture
from vit_jax.errors import InputError


@dataclass(frozen=True)
class Split:
    """Labelled images.

    names:   for messages and reports: the path of a file, or the number of a record.
    labels:  indices into the class names of the data set.
    open:    the image at an index, upright, with its own channels; raises CorruptImageError.
    """

    names: Sequence[str]
    labels: Int32[np.ndarray, " count"]
    open: Callable[[int], Picture]

    @classmethod
    def from_files(cls, files: Sequence[str | Path], labels: np.ndarray | None = None) -> "Split":
        """Return the split of these image files; without labels, every label is 0."""
        if labels is None:
            labels = np.zeros(len(files), np.int32)
        return cls([str(file) for file in files], labels, lambda index: open_picture(files[index]))

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: Sequence[int] | np.ndarray) -> "Split":
        """Return the split of the images at these indices, in this order."""
        subset = [int(i) for i in indices]
        names = [self.names[i] for i in subset]
        return replace(self, names=names, labels=self.labels[subset], open=lambda i: self.open(subset[i]))


@dataclass(frozen=True)
class Dataset:
    """A data set: its class names and its two splits."""

    name: str
    class_names: tuple[str, ...]
    train: Split
    val: Split


def hold_out(split: Split, fraction: float, seed: int) -> tuple[Split, Split]:
    """Divide a split into (rest, holdout), with `fraction` of every class in the holdout; `seed` decides which.

    Each class with two or more images has at least one on either side.
    """
    rng = np.random.default_rng(seed)
    rest: list[int] = []
    holdout: list[int] = []
    for label in np.unique(split.labels):
        members = rng.permutation(np.flatnonzero(split.labels == label))
        count = min(max(1, round(fraction * len(members))), len(members) - 1)
        holdout += members[:count].tolist()
        rest += members[count:].tolist()
    return split.take(sorted(rest)), split.take(sorted(holdout))


def class_indices(classes: Sequence[str], class_names: Sequence[str]) -> Int32[np.ndarray, " count"]:
    """Return the index of each class in class_names."""
    index = {name: i for i, name in enumerate(class_names)}
    return np.array([index[name] for name in classes], np.int32)


def check_classes(train: Sequence[str], val: Sequence[str], source: str) -> tuple[str, ...]:
    """Return the sorted class names of the training images, given each image's class.

    Raises InputError naming `source` for fewer than two classes, and for a class that only validation has.
    """
    counts = Counter(train)
    if len(counts) < 2:
        raise InputError(f"{source}: only one class ({next(iter(counts))}); a classifier needs two or more")
    unseen = sorted(set(val) - set(counts))
    if unseen:
        raise InputError(f"{source}: class {unseen[0]} is in the validation images but not in the training ones")
    return tuple(sorted(counts))
