"""A folder of images as a data set: classes from subfolders, or from {class}_{id}.jpg names."""

import os
from pathlib import Path

from vit_jax.data.dataset import Dataset, Split, check_classes, class_indices, hold_out
from vit_jax.data.decode import ARRAY, EXTENSIONS
from vit_jax.errors import InputError

VAL_FOLDERS = ("val", "valid", "validation", "test")


def image_files(folder: str | os.PathLike) -> list[Path]:
    """List the image files below a folder, by extension, sorted by path; its .npy arrays if it has no other images.

    Raises InputError when there is none.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: {'not a folder' if folder.exists() else 'no such folder'}")
    named = [path for path in folder.rglob("*") if path.suffix.lower() in {*EXTENSIONS, ARRAY}]
    files = sorted(path for path in named if not path.name.startswith(".") and path.is_file())
    images = [path for path in files if path.suffix.lower() != ARRAY] or files
    if not images:
        raise InputError(f"{folder}: no images in it (looked for {', '.join(sorted({*EXTENSIONS, ARRAY}))})")
    return images


def class_of(path: Path, root: Path) -> str:
    """Return the class of a file: its subfolder of root, else its name up to the last underscore.

    Raises InputError for a file that has neither.
    """
    inside = path.relative_to(root).parts
    if len(inside) > 1:
        return inside[0]
    name, underscore, _ = path.stem.rpartition("_")
    if not underscore or not name:
        raise InputError(f"{path}: no class; use a subfolder for each class or names like cat_12.jpg")
    return name


def _list_labelled_files(folder: Path) -> tuple[list[Path], list[str]]:
    """List the image files below a folder, and the class of each."""
    files = image_files(folder)
    if len({path.parent == folder for path in files}) == 2:
        unsorted = next(path for path in files if path.parent == folder)
        raise InputError(f"{unsorted}: not in a class subfolder, as other images are; move it into one")
    return files, [class_of(path, folder) for path in files]


def _find_val_folder(folder: Path) -> Path | None:
    return next((folder / name for name in VAL_FOLDERS if (folder / name).is_dir()), None)


def open_folder_split(folder: str | os.PathLike, split: str) -> tuple[Split, tuple[str, ...]]:
    """Open one split ("val" or "train") of a folder, all images where there is no such subfolder, and its class names.

    Raises InputError for an empty folder and for a file without a class.
    """
    folder = Path(folder)
    inner = folder / "train" if split == "train" else _find_val_folder(folder)
    files, classes = _list_labelled_files(inner if inner is not None and inner.is_dir() else folder)
    names = tuple(sorted(set(classes)))
    return Split.from_files(files, class_indices(classes, names)), names


def open_folder(folder: str | os.PathLike, *, val_fraction: float = 0.2, seed: int = 0) -> Dataset:
    """Open a folder with train/ and val/ in it, or a folder of which val_fraction of every class is held out.

    Raises InputError for a missing or empty folder, a file without a class, fewer than two classes, and a class that
    only validation has.
    """
    folder = Path(folder)
    train, val = folder / "train", _find_val_folder(folder)
    if train.is_dir() and val is not None:
        train_files, train_classes = _list_labelled_files(train)
        val_files, val_classes = _list_labelled_files(val)
        names = check_classes(train_classes, val_classes, str(folder))
        train_split = Split.from_files(train_files, class_indices(train_classes, names))
        return Dataset(str(folder), names, train_split, Split.from_files(val_files, class_indices(val_classes, names)))
    root = train if train.is_dir() else folder
    files, classes = _list_labelled_files(root)
    names = check_classes(classes, [], str(folder))
    single = next((name for name in names if classes.count(name) < 2), None)
    if single is not None:
        raise InputError(f"{folder}: class {single} has only one image; validation and training need one each")
    split = Split.from_files(files, class_indices(classes, names))
    return Dataset(str(folder), names, *hold_out(split, val_fraction, seed))
