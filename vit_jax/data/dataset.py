"""What a data set is to the programs here: labelled pictures in two splits."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from vit_jax.errors import InputError


@dataclass(frozen=True)
class Split:
    """Labelled pictures. labels: int32 [count], an index into the data set's class names."""

    names: Sequence[str]  # for messages and reports: a file's path, or a record's number
    labels: np.ndarray
    open: Callable[[int], Image.Image]  # the picture at an index, upright RGB

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: Sequence[int] | np.ndarray) -> "Split":
        """The split made of these examples, in this order."""
        chosen = [int(i) for i in indices]
        names = [self.names[i] for i in chosen]
        return replace(self, names=names, labels=self.labels[chosen], open=lambda i: self.open(chosen[i]))


@dataclass(frozen=True)
class Dataset:
    """A data set: its class names and its two splits."""

    name: str
    class_names: tuple[str, ...]
    train: Split
    val: Split


def hold_out(split: Split, fraction: float, seed: int) -> tuple[Split, Split]:
    """Divide a split in two, (rest, fraction of every class), drawn from the seed alone.

    Each class with two examples or more gives at least one to either side.
    """
    rng = np.random.default_rng(seed)
    rest: list[int] = []
    taken: list[int] = []
    for label in np.unique(split.labels):
        members = rng.permutation(np.flatnonzero(split.labels == label))
        count = min(max(1, round(fraction * len(members))), len(members) - 1)
        taken += members[:count].tolist()
        rest += members[count:].tolist()
    return split.take(sorted(rest)), split.take(sorted(taken))


def class_indices(classes: Sequence[str], class_names: Sequence[str]) -> np.ndarray:
    """Each example's class as an index into class_names, int32."""
    index = {name: i for i, name in enumerate(class_names)}
    return np.array([index[name] for name in classes], np.int32)


def check_classes(train: Sequence[str], val: Sequence[str], where: str) -> tuple[str, ...]:
    """The sorted class names of a training split.

    Raises InputError for fewer than two classes, and for a validation class that training never sees.
    """
    counts = Counter(train)
    if len(counts) < 2:
        raise InputError(f"{where}: only one class ({next(iter(counts))}); a classifier needs two or more")
    unseen = sorted(set(val) - set(counts))
    if unseen:
        raise InputError(f"{where}: class {unseen[0]} is in the validation images but not in the training ones")
    return tuple(sorted(counts))
