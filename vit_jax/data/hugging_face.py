"""Data sets of the Hugging Face hub, hf:NAME[:CONFIG], and folders of parquet files, through the package `datasets`.

It keeps what it reads as Arrow files in its cache, or in --data-dir, and maps them into memory: access is random. This
library decodes the images from their bytes, as in every other data set.
"""

import importlib
import logging
import os
from dataclasses import dataclass
from typing import Any, NamedTuple

from vit_jax.channels import Picture
from vit_jax.data.dataset import Dataset, Split, check_classes, class_indices, hold_out, multi_hot
from vit_jax.data.decode import open_picture
from vit_jax.data.hugging_face_columns import ColumnLabels, choose_columns, read_labels, stated_names
from vit_jax.data.hugging_face_names import HubName, parse_name
from vit_jax.data.parquet_names import check_class_names
from vit_jax.data.split_folders import match_splits
from vit_jax.errors import InputError
from vit_jax.notes import note

PARQUET = ".parquet"
MAX_FOLDERS = 32  # more are the classes of images, and listing them all takes time


@dataclass(frozen=True)
class StoredPictures:
    """The images in a column of a table of `datasets`: call it with an index. It can be pickled."""

    table: Any
    column: str
    name: str

    def __call__(self, index: int, *, max_value: float | None = None) -> Picture:
        """Return the picture of a row, as open_picture does. Raises InputError for a row without one."""
        stored = self.table[index][self.column]
        name = f"{self.name}[{index}]"
        if stored is None or not (stored["bytes"] or stored.get("path")):
            raise InputError(f"{name}: has no image in the column {self.column}")
        return open_picture(stored["bytes"] or stored["path"], name=name, max_value=max_value)


def is_parquet_folder(folder: str | os.PathLike) -> bool:
    """Return whether a folder, or one of its folders if they are not more than MAX_FOLDERS, has parquet files."""
    root = os.fspath(folder)
    if not os.path.isdir(root) or not os.access(root, os.R_OK | os.X_OK):
        return False
    entries = list(os.scandir(root))
    inner = [entry.path for entry in entries if entry.is_dir() and os.access(entry.path, os.R_OK | os.X_OK)]
    names = [entry.name for entry in entries]
    if len(inner) <= MAX_FOLDERS:
        names += [name for path in inner for name in os.listdir(path)]
    return any(name.lower().endswith(PARQUET) for name in names)


def open_hugging_face(
    spec: str, *, data_dir: str | None = None, val_fraction: float = 0.2, seed: int = 0, multi_label: bool = False
) -> Dataset:
    """Open "hf:NAME[:CONFIG][,image=COLUMN][,label=COLUMN]", or a folder of parquet files.

    Its splits are recognized as those of folders are, see split_folders; without one for validation, val_fraction of
    train is held out. A label column of lists makes sets of labels, as does multi_label. Prints what was chosen.
    Raises InputError, in one line, if `datasets` is not installed, the data set cannot be loaded, or its columns or
    labels are not clear, or if its parquet files number the classes in different ways.
    """
    name = parse_name(spec)
    tables, files = _load(spec, name, data_dir)
    splits = match_splits(spec, tables)
    if splits.train is None:
        raise InputError(f"{spec}: no split train; it has {', '.join(tables)}")
    columns = choose_columns(spec, tables[splits.train].features, image=name.image, label=name.label)
    check_class_names(spec, files, columns.label, stated_names(tables[splits.train].features[columns.label]))
    used = [split for split in (splits.train, splits.val) if split is not None]
    note(
        f"{spec}: image column {columns.image}, label column {columns.label}; {splits.train} trains, "
        f"{splits.val or f'{val_fraction:g} of it'} validates"
    )
    if splits.others:
        print(f"{spec}: splits not used: {', '.join(splits.others)}")
    labels = {split: read_labels(f"{spec}/{split}", tables[split], columns.label) for split in used}
    is_set = multi_label or labels[splits.train].is_set
    class_names = _class_names(spec, [labels[split] for split in used])
    opened = [
        _open_split(f"{spec}/{split}", tables[split], columns.image, labels[split], class_names, is_set=is_set)
        for split in used
    ]
    train, val = opened if len(opened) == 2 else hold_out(opened[0], val_fraction, seed)
    return Dataset(spec, class_names, train, val)


class _Loaded(NamedTuple):
    """tables: of `datasets`, by split. files: those of a local data set."""

    tables: Any
    files: list[str]


def _load(spec: str, name: HubName, data_dir: str | None) -> _Loaded:
    try:
        datasets = importlib.import_module("datasets")
    except ImportError as error:
        raise InputError(f"{spec}: needs the package datasets: pip install 'vit-jax[datasets]'") from error
    hub_log = logging.getLogger("huggingface_hub")
    level, shows_progress = hub_log.level, datasets.is_progress_bar_enabled()
    hub_log.setLevel(logging.ERROR)  # its retries; the error below says the same in one line
    datasets.disable_progress_bars()
    try:
        builder = datasets.load_dataset_builder(name.source, name.config, cache_dir=data_dir)
        builder.download_and_prepare()
        tables = builder.as_dataset()
    except Exception as error:  # many kinds: unknown names and configs, damaged files, no network
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise InputError(f"{spec}: cannot be loaded: {reason}") from error
    finally:
        hub_log.setLevel(level)
        if shows_progress:
            datasets.enable_progress_bars()
    files = [str(file) for part in (builder.config.data_files or {}).values() for file in part]
    return _Loaded(tables, [file for file in files if file.lower().endswith(PARQUET) and os.path.isfile(file)])


def _class_names(spec: str, labels: list[ColumnLabels]) -> tuple[str, ...]:
    """Return the class names in the order of the column's own list, or else sorted."""
    if labels[0].class_names is None:
        in_train, in_val = ([name for row in part.rows for name in row] for part in (labels[0], labels[-1]))
        if len(set(in_train)) < 2:
            raise InputError(f"{spec}: {len(set(in_train))} classes in the training images; give two or more")
        return check_classes(in_train, in_val, spec)
    if len(set(labels[0].class_names)) < max(2, len(labels[0].class_names)):
        raise InputError(f"{spec}: its class names are not two or more different ones: {labels[0].class_names}")
    return labels[0].class_names


def _open_split(
    where: str, table: Any, column: str, labels: ColumnLabels, class_names: tuple[str, ...], *, is_set: bool
) -> Split:
    names = [f"{where}[{index}]" for index in range(len(table))]
    pictures = StoredPictures(_undecoded(table.select_columns([column]), column), column, where)
    if is_set:
        return Split(names, multi_hot(labels.rows, class_names), pictures)
    unlabelled = next((index for index, row in enumerate(labels.rows) if not row), None)
    if unlabelled is not None:
        raise InputError(f"{names[unlabelled]}: has no label; give --multi-label if images have any number of labels")
    return Split(names, class_indices([row[0] for row in labels.rows], class_names), pictures)


def _undecoded(table: Any, column: str) -> Any:
    """Return a table whose images are their bytes, also if `datasets` would decode them."""
    feature = table.features[column]
    return table.cast_column(column, type(feature)(decode=False)) if hasattr(feature, "decode") else table
