"""A table of files and labels as a data set, with a split column or with images that are held out."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vit_jax.data.dataset import Dataset, Split, check_classes, class_indices, hold_out, multi_hot
from vit_jax.data.split_folders import match_splits
from vit_jax.data.table_rows import LabelRow, read_rows
from vit_jax.errors import InputError


def open_table(
    path: str | os.PathLike, *, val_fraction: float = 0.2, seed: int = 0, multi_label: bool = False
) -> Dataset:
    """Open a .csv, .tsv or .jsonl of file and label columns; paths are relative to the table.

    A split column divides it, else val_fraction of every class is held out. If a row has several labels, or with
    multi_label, every image has a set of labels, which may be empty.
    Raises InputError for missing files, files that are listed twice, and as read_rows and open_folder do.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: {'not a file' if path.exists() else 'no such file'}; give a table of file and label")
    rows = read_rows(path)
    _check_files(path, rows)
    is_multi = multi_label or any(len(row.labels) > 1 for row in rows)
    unlabelled = next((row for row in rows if not row.labels), None)
    if unlabelled is not None and not is_multi:
        raise InputError(
            f"{path}, line {unlabelled.line}: no label for {unlabelled.file}; give it one, or give --multi-label if "
            "images have any number of labels"
        )
    train, val = _divide(path, rows)
    names = _class_names(path, train, val, is_multi=is_multi)
    train_split = _open_rows(path.parent, train, names, is_multi=is_multi)
    if val:
        splits = train_split, _open_rows(path.parent, val, names, is_multi=is_multi)
    else:
        counts = Counter(name for row in train for name in row.labels)
        single = next((name for name in names if counts[name] < 2), None)
        if single is not None and not is_multi:
            raise InputError(f"{path}: class {single} has only one image; validation and training need one each")
        splits = hold_out(train_split, val_fraction, seed)
    return Dataset(str(path), names, *splits, root=str(path.parent))


def _check_files(path: Path, rows: Sequence[LabelRow]) -> None:
    """Raise InputError, listing them, for files that do not exist or that have two rows."""
    root = path.parent.absolute()  # one file may be given by a relative and by an absolute path
    missing = [row for row in rows if not os.path.isfile(path.parent / row.file)]
    if missing:
        shown = ", ".join(f"{row.file} (line {row.line})" for row in missing[:5])
        more = ", ..." if len(missing) > 5 else ""
        raise InputError(f"{path}: {len(missing)} of {len(rows)} files are missing in {path.parent}: {shown}{more}")
    lines: dict[str, int] = {}
    for row in rows:
        first = lines.setdefault(os.path.normpath(os.path.join(root, row.file)), row.line)
        if first != row.line:
            raise InputError(
                f"{path}: {row.file} is in lines {first} and {row.line}; give one line for each image "
                "(several labels: a|b)"
            )


def _divide(path: Path, rows: Sequence[LabelRow]) -> tuple[list[LabelRow], list[LabelRow]]:
    """Return the rows of training and of validation, the latter empty where none is named."""
    if not rows[0].split:
        return list(rows), []
    names = {row.split for row in rows}
    splits = match_splits(path, names)
    missing = "train" if splits.train is None else "val" if splits.val is None and splits.others else ""
    if missing:
        raise InputError(f"{path}: no row has the split {missing}; the column has {', '.join(sorted(names))}")
    if splits.others:
        unused = sum(row.split in splits.others for row in rows)
        print(f"{path}: {unused} rows are not used, of the split {', '.join(splits.others)}")
    train, val = ([row for row in rows if row.split == name] for name in (splits.train, splits.val))
    return train, val


def _class_names(path: Path, train: Sequence[LabelRow], val: Sequence[LabelRow], *, is_multi: bool) -> tuple[str, ...]:
    in_train, in_val = ([name for row in rows for name in row.labels] for rows in (train, val))
    if is_multi and len(set(in_train)) < 2:
        raise InputError(f"{path}: {len(set(in_train))} classes in the training images; give two or more")
    return check_classes(in_train, in_val, str(path))


def _open_rows(root: Path, rows: Sequence[LabelRow], names: tuple[str, ...], *, is_multi: bool) -> Split:
    files = [os.path.join(root, os.path.normpath(row.file)) for row in rows]
    if is_multi:
        return Split.from_files(files, multi_hot([row.labels for row in rows], names))
    labels: np.ndarray = class_indices([row.labels[0] for row in rows], names)
    return Split.from_files(files, labels)
