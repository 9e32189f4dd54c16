"""What fit accepts as images and labels, as a Dataset: arrays, a random-access source, a folder, a Split, a Dataset."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from vit_jax.data.dataset import Dataset, Labels, Split
from vit_jax.data.datasets import open_dataset
from vit_jax.data.folder import open_folder_split
from vit_jax.data.in_memory import LabelledSplit, split_images, split_items
from vit_jax.data.labels import parse_labels
from vit_jax.errors import InputError

UNNAMED = "unnamed data"  # the name of a data set that no path or name stands for
KINDS = "a Dataset, (images, labels), a folder, or a data set with __len__ and __getitem__ -> (picture, label)"


def check_named(data: str) -> None:
    """Raise InputError if a run's data, by its config, have no name, so that no program can open them."""
    if data == UNNAMED:
        raise InputError(
            "this run's data were passed to fit in Python and have no name; give --data, or resume it in Python"
        )


def as_dataset(train: Any, val: Any, *, class_names: Sequence[str] | None = None, seed: int = 0) -> Dataset:
    """Return training and validation data as one Dataset.

    train, val:  a Dataset, of which that split is taken; (images, labels), the images uint8 [N, h, w] or [N, h, w, c],
                 or a list of PIL images or uint8 arrays, the labels whole numbers or texts [N], or for sets of labels
                 booleans [N, C]; the path of a folder of classes; a Split; or a random-access data set of
                 (picture, label). Every item of the last kind is read once for its label.
    val:         None for the validation images of a Dataset, or of a path or name that vit_jax.data.open_dataset takes;
                 `seed` decides which are held out.
    class_names: of the labels 0, 1, ... if the training data have no names; by default the numbers are the names.

    Raises InputError, in one line, for images that are not uint8, labels that are not of these classes, an empty split,
    fewer than two classes, classes without names or training images, and names that the data contradict.
    """
    source = _open_both(train, seed) if val is None else None
    first = _open_split(train if source is None else source, "train")
    second = _open_split(val if source is None else source, "val")
    for name, opened in (("train", first), ("val", second)):
        if not len(opened.split):
            raise InputError(f"{name}: no images; give at least one")
    if first.split.is_multi_label != second.split.is_multi_label:
        raise InputError("val: one split has sets of labels, the other one label for each image; give both alike")
    names = _choose_names(class_names, first, second)
    checked = replace(first.split, labels=_find_labels("train", first, names))
    if len(names) < 2:
        raise InputError(f"train: only one class ({names[0]}); a classifier needs two or more")
    data = Dataset(UNNAMED, names, checked, replace(second.split, labels=_find_labels("val", second, names)))
    return data if source is None else replace(data, name=source.name, root=source.root)


def _open_both(data: Any, seed: int) -> Dataset:
    if isinstance(data, Dataset):
        return data
    if isinstance(data, str | os.PathLike):
        return open_dataset(os.fspath(data), seed=seed)
    raise InputError("val: None stands for the validation images of a Dataset or a folder; give some next to train")


def _open_split(data: Any, name: str) -> LabelledSplit:
    """Return the split that data stand for. name: "train" or "val", also for messages."""
    if isinstance(data, Dataset):
        split = getattr(data, name)
        return LabelledSplit(_parse_split(split, name).split, check_class_names(data.class_names))
    if isinstance(data, Split):
        return _parse_split(data, name)
    if isinstance(data, str | os.PathLike):
        return LabelledSplit(*open_folder_split(data, name))
    if isinstance(data, tuple) and len(data) == 2:
        return split_images(*data, name=name)
    if isinstance(data, list) and len(data) == 2 and hasattr(data[0], "ndim"):
        return split_images(*data, name=name)
    if hasattr(data, "__len__") and hasattr(data, "__getitem__"):
        return split_items(data, name=name)
    raise InputError(f"{name}: {type(data).__name__} is no data; give {KINDS}")


def _parse_split(split: Split, name: str) -> LabelledSplit:
    parsed = parse_labels(split.labels, name)
    if len(split.names) != len(parsed.labels):
        raise InputError(f"{name}: {len(split.names):,} names and {len(parsed.labels):,} labels; give one of each")
    return LabelledSplit(replace(split, labels=parsed.labels), parsed.class_names)


def check_class_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return names of classes as a tuple. Raises InputError for names that are no texts, none, or not all different."""
    if isinstance(names, str):
        raise InputError(f"class_names: one text, {names!r}; give a list of names")
    if not len(names):
        raise InputError("class_names: none; give a text for each class, or leave it out")
    if not all(isinstance(name, str) and name.strip() for name in names):
        raise InputError(f"class_names: {list(names)!r:.60} are not all texts; give a text for each class")
    unique = tuple(map(str, names))
    repeated = next((name for name, count in Counter(unique).items() if count > 1), None)
    if repeated is not None:
        raise InputError(f"class_names: two classes are called {repeated}; rename one")
    return unique


def _choose_names(given: Sequence[str] | None, train: LabelledSplit, val: LabelledSplit) -> tuple[str, ...]:
    """Return the class names: those of the training data, else `given`, else the numbers of the labels."""
    names = None if given is None else check_class_names(given)
    own = train.class_names
    if own is not None:
        if names not in (None, own):
            raise InputError(
                f"class_names: not those of the data, which have their own ({', '.join(own[:3])}, ...); leave it out"
            )
        return own
    if names is not None:
        return names
    if val.class_names is not None:
        raise InputError(
            f"train: its labels are numbers and those of val are names ({', '.join(val.class_names[:3])}, ...); give "
            "class_names"
        )
    return _name_numbers(train.split)


def _name_numbers(train: Split) -> tuple[str, ...]:
    if train.is_multi_label:
        return tuple(map(str, range(train.labels.shape[1])))
    present = np.unique(train.labels)
    gaps = np.flatnonzero(present != np.arange(len(present)))
    if len(gaps):
        raise InputError(
            f"train: no image has the label {gaps[0]}, and one has {present[-1]}; number the classes 0, 1, ..., or "
            "give class_names for all of them"
        )
    return tuple(map(str, present.tolist()))


def _find_labels(name: str, opened: LabelledSplit, names: tuple[str, ...]) -> Labels:
    """Return the labels of a split as indices into `names`. Raises InputError for a label that has none."""
    own, labels = opened.class_names, opened.split.labels
    if opened.split.is_multi_label:
        if own not in (None, names) or labels.shape[1] != len(names):
            raise InputError(f"{name}: sets of {labels.shape[1]} labels for {len(names)} classes; give one of each")
        if not labels.any():
            raise InputError(f"{name}: no image has a label; give at least one image one")
        return labels
    count = len(names if own is None else own)
    bad = np.flatnonzero((labels < 0) | (labels >= count))
    if len(bad):
        raise InputError(
            f"{name}: label {labels[bad[0]]} of image {bad[0]} is not among 0 to {count - 1}; correct it, or give "
            "class_names for all classes"
        )
    if own in (None, names):
        return labels
    unknown = next((own[label] for label in np.unique(labels) if own[label] not in names), None)
    if unknown is not None:
        raise InputError(f"{name}: class {unknown} is not one of the classes to train; remove its images")
    index = {class_name: i for i, class_name in enumerate(names)}
    return np.array([index.get(class_name, -1) for class_name in own], np.int32)[labels]
