"""A folder of pictures as a data set: classes from subfolders, or from {class}_{id}.jpg names."""

import os
from pathlib import Path

import numpy as np

from vit_jax.data.dataset import Dataset, Split, check_classes, class_indices, hold_out
from vit_jax.data.decode import EXTENSIONS, open_rgb
from vit_jax.errors import InputError

VAL_FOLDERS = ("val", "valid", "validation", "test")


def image_files(folder: str | os.PathLike) -> list[Path]:
    """Every image file below a folder, by extension, sorted by path. Raises InputError when there is none."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: {'not a folder' if folder.exists() else 'no such folder'}")
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in EXTENSIONS and not path.name.startswith(".") and path.is_file()
    )
    if not files:
        raise InputError(f"{folder}: no images in it (looked for {', '.join(sorted(EXTENSIONS))})")
    return files


def class_of(path: Path, root: Path) -> str:
    """A file's class: its subfolder below root, else what stands before the last underscore of its name."""
    inside = path.relative_to(root).parts
    if len(inside) > 1:
        return inside[0]
    name, underscore, _ = path.stem.rpartition("_")
    if not underscore or not name:
        raise InputError(f"{path}: no class in sight; use a subfolder for each class or names like cat_12.jpg")
    return name


def _examples(folder: Path) -> tuple[list[Path], list[str]]:
    files = image_files(folder)
    if len({path.parent == folder for path in files}) == 2:
        stray = next(path for path in files if path.parent == folder)
        raise InputError(f"{stray}: lies beside class subfolders; move it into one")
    return files, [class_of(path, folder) for path in files]


def _split(files: list[Path], labels: np.ndarray) -> Split:
    return Split([str(path) for path in files], labels, lambda i: open_rgb(files[i]))


def _val_folder(folder: Path) -> Path | None:
    return next((folder / name for name in VAL_FOLDERS if (folder / name).is_dir()), None)


def open_folder_split(folder: str | os.PathLike, split: str) -> tuple[Split, tuple[str, ...]]:
    """One split ("val" or "train") of a folder, all of it where it has no such subfolder, and its class names.

    Raises InputError for an empty folder and for a file without a class.
    """
    folder = Path(folder)
    inner = folder / "train" if split == "train" else _val_folder(folder)
    files, classes = _examples(inner if inner is not None and inner.is_dir() else folder)
    names = tuple(sorted(set(classes)))
    return _split(files, class_indices(classes, names)), names


def open_folder(folder: str | os.PathLike, *, val_fraction: float = 0.2, seed: int = 0) -> Dataset:
    """The data set in a folder: train/ and val/ in it, or else one set of which val_fraction is held out.

    Raises InputError for a missing or empty folder, a file without a class, one class only, or a validation class
    that training never sees.
    """
    folder = Path(folder)
    train, val = folder / "train", _val_folder(folder)
    if train.is_dir() and val is not None:
        train_files, train_classes = _examples(train)
        val_files, val_classes = _examples(val)
        names = check_classes(train_classes, val_classes, str(folder))
        train_split = _split(train_files, class_indices(train_classes, names))
        return Dataset(str(folder), names, train_split, _split(val_files, class_indices(val_classes, names)))
    root = train if train.is_dir() else folder
    files, classes = _examples(root)
    names = check_classes(classes, [], str(folder))
    single = next((name for name in names if classes.count(name) < 2), None)
    if single is not None:
        raise InputError(f"{folder}: class {single} has one image only; validation and training need one each")
    return Dataset(str(folder), names, *hold_out(_split(files, class_indices(classes, names)), val_fraction, seed))
