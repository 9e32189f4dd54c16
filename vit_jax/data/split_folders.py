"""The folders train/ and val/ in a folder of images, under any of their usual names."""

import os
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from vit_jax.errors import InputError

TRAIN_FOLDERS = ("train", "training")
VAL_FOLDERS = ("val", "valid", "validation")
TEST_FOLDERS = ("test",)


class SplitFolders(NamedTuple):
    """The names of the folders for training and for validation, None for a missing one, and of all others."""

    train: str | None
    val: str | None
    others: tuple[str, ...]

    def named(self, split: str) -> str | None:
        """Return the folder of "train" or "val"."""
        return self.train if split == "train" else self.val


def find_split_folders(source: str | os.PathLike, folders: Iterable[str]) -> SplitFolders:
    """Find the folders of the splits, in any case, among those in `source` that hold images.

    Raises InputError as match_splits does, and for a split next to other folders: is it a split, or a class?
    """
    train, val, others = splits = match_splits(source, folders)
    if (train is None) != (val is None) and others:
        split = train or val
        shown = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
        raise InputError(
            f"{source}: {split} is the name of a split, but the folders next to it hold images too ({shown}); "
            f"rename {split} if it is a class, or give {os.path.join(source, str(split))} if the classes are in it"
        )
    return splits


def match_splits(source: str | os.PathLike, names: Iterable[str]) -> SplitFolders:
    """Return which of these names of folders, or of splits in a table, mean training and validation, in any case.

    "test" is for validation if there is no other one. Raises InputError, naming `source`, for two names of one split.
    """
    ordered = sorted(names)
    train, val, test = (_find(source, ordered, kind) for kind in (TRAIN_FOLDERS, VAL_FOLDERS, TEST_FOLDERS))
    val = val or test
    return SplitFolders(train, val, tuple(name for name in ordered if name not in (train, val)))


def is_split(folder: str) -> bool:
    """Return whether a folder has the name of a split."""
    return folder.lower() in (*TRAIN_FOLDERS, *VAL_FOLDERS, *TEST_FOLDERS)


def _find(source: str | os.PathLike, names: Sequence[str], kind: tuple[str, ...]) -> str | None:
    found = [name for name in names if name.lower() in kind]
    if len(found) > 1:
        raise InputError(f"{source}: has {' and '.join(found)}, which mean the same; keep one")
    return found[0] if found else None
