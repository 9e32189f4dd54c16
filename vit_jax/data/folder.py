"""A folder of images as a data set: classes from subfolders, or from {class}_{id}.jpg names."""

import os
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from vit_jax.data.class_names import class_of, hint_for_one_class, merged_folders
from vit_jax.data.dataset import Dataset, Split, check_classes, class_indices, hold_out
from vit_jax.data.formats import ARRAY
from vit_jax.data.listing import Listing, list_images
from vit_jax.data.split_folders import SplitFolders, find_split_folders, is_split
from vit_jax.errors import InputError


def image_files(folder: str | os.PathLike) -> list[Path]:
    """List the image files below a folder, sorted by path. Prints and raises as image_names does."""
    root = Path(folder)
    return [root / name for name in image_names(folder)]


def image_names(folder: str | os.PathLike) -> list[str]:
    """List the image files below a folder, relative to it, sorted by path; its .npy arrays if it has no other images.

    Prints a line for what is skipped: hidden and housekeeping folders, and files that are no images.
    Raises InputError when there is none, and as list_images does.
    """
    return _list_some(folder).files


def _list_some(folder: str | os.PathLike) -> Listing:
    """List and report the images below a folder. Raises InputError when there is none."""
    listing = list_images(folder)
    if not listing.files:
        skipped = "".join(f"; {line.partition(': ')[2]}" for line in listing.skipped.describe(""))
        raise InputError(f"{folder}: no images in it (no file that Pillow reads, and no {ARRAY} array){skipped}")
    listing.report()
    return listing


class _LabelledFiles(NamedTuple):
    """Image files in a folder, relative to it, and the class of each."""

    folder: Path
    files: list[str]
    classes: list[str]

    def open(self, class_names: tuple[str, ...]) -> Split:
        """Return the split of these files."""
        prefix = os.path.join(self.folder, "")
        return Split.from_files([prefix + file for file in self.files], class_indices(self.classes, class_names))


def _select(listing: Listing, split: str | None) -> _LabelledFiles:
    """Return the files of a split's folder, of all of a listing for None, with their classes.

    Prints lines for folders without images, and for those of one name. Raises InputError if the classes are unclear.
    """
    folder = listing.root / (split or "")
    files, empty = (_below(split, names) for names in (listing.files, listing.empty))
    subfolders = {file.partition(os.sep)[0] for file in files if os.sep in file}
    _check_subfolders(folder, [file for file in files if os.sep not in file], subfolders)
    empty = [name for name in empty if os.sep not in name]
    if empty and subfolders:
        print(f"{folder}: no images in {', '.join(empty)}, so no class of that name")
    for group in merged_folders(subfolders):
        print(f"{folder}: {len(group)} folders named {group[0]}, in different Unicode characters, are one class")
    return _LabelledFiles(folder, files, [sys.intern(class_of(file, folder)) for file in files])


def _below(folder: str | None, names: list[str]) -> list[str]:
    """Return the names below a folder, relative to it; all of them for None."""
    if folder is None:
        return names
    prefix = f"{folder}{os.sep}"
    return [name[len(prefix) :] for name in names if name.startswith(prefix)]


def _check_subfolders(folder: Path, loose: list[str], subfolders: set[str]) -> None:
    """Raise InputError for files next to class subfolders, and for subfolders that are splits once more."""
    if loose and subfolders:
        raise InputError(f"{folder / loose[0]}: not in a class subfolder, as other images are; move it into one")
    if subfolders and all(map(is_split, subfolders)):
        raise InputError(f"{folder}: has splits in it ({', '.join(sorted(subfolders))}), no classes; give {folder}")


def _find_splits(listing: Listing) -> SplitFolders:
    folders = {file.partition(os.sep)[0] for file in listing.files if os.sep in file}
    return find_split_folders(listing.root, folders)


def open_folder_split(folder: str | os.PathLike, split: str) -> tuple[Split, tuple[str, ...]]:
    """Open one split ("val" or "train") of a folder, all images where there is no such subfolder, and its class names.

    Raises InputError for an empty folder, a file without a class, and a folder that has only the other split.
    """
    listing = _list_some(folder)
    splits = _find_splits(listing)
    selected, other = (splits.train, splits.val) if split == "train" else (splits.val, splits.train)
    if selected is None and other is not None:
        raise InputError(f"{folder}: has {other} but no folder of --split {split}; give {listing.root / other}")
    labelled = _select(listing, selected)
    names = tuple(sorted(set(labelled.classes)))
    return labelled.open(names), names


def open_folder(folder: str | os.PathLike, *, val_fraction: float = 0.2, seed: int = 0) -> Dataset:
    """Open a folder with train/ and val/ in it, or a folder of which val_fraction of every class is held out.

    See split_folders for other names of the two. Prints a line for everything that is left out.
    Raises InputError for a missing or empty folder, a file without a class, fewer than two classes, a class that only
    validation has, and a folder a level too high.
    """
    listing = _list_some(folder)
    root, splits = listing.root, _find_splits(listing)
    if splits.train is None and splits.val is not None:
        raise InputError(f"{root}: has {splits.val} but no train folder; to divide it, give {root / splits.val}")
    train = _select(listing, splits.train)
    if splits.val is None:
        return _open_and_hold_out(root, train, val_fraction, seed)
    if splits.others:
        print(f"{root}: {splits.train} trains, {splits.val} validates; not used: {', '.join(splits.others)}")
    val = _select(listing, splits.val)
    names = _check_classes(root, train, val.classes)
    return Dataset(str(root), names, train.open(names), val.open(names), root=str(root))


def _open_and_hold_out(root: Path, labelled: _LabelledFiles, fraction: float, seed: int) -> Dataset:
    names = _check_classes(root, labelled, [])
    counts = Counter(labelled.classes)
    single = next((name for name in names if counts[name] < 2), None)
    if single is not None:
        raise InputError(f"{root}: class {single} has only one image; validation and training need one each")
    return Dataset(str(root), names, *hold_out(labelled.open(names), fraction, seed), root=str(root))


def _check_classes(root: Path, train: _LabelledFiles, val: list[str]) -> tuple[str, ...]:
    """Return the class names; see check_classes. The error for a single one names the folder to give instead."""
    if len(set(train.classes)) == 1:
        hint = hint_for_one_class(train.folder, train.files)
        raise InputError(f"{root}: only one class ({train.classes[0]}); a classifier needs two or more{hint}")
    return check_classes(train.classes, val, str(root))
