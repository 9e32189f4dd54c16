"""Open the data set that --data names: a folder, a table, digits, oxford_iiit_pet, hf:NAME, tfds:NAME[/SPLIT]."""

import os
from pathlib import Path
from typing import Any

from vit_jax.data.dataset import Dataset
from vit_jax.data.digits import open_digits
from vit_jax.data.folder import open_folder
from vit_jax.data.hugging_face import is_parquet_folder, open_hugging_face
from vit_jax.data.hugging_face_names import PREFIX
from vit_jax.data.listing import list_images
from vit_jax.data.pets import open_pets
from vit_jax.data.table import open_table
from vit_jax.data.table_rows import SUFFIXES, is_table
from vit_jax.data.tfds import open_tfds
from vit_jax.download import cache_folder
from vit_jax.errors import InputError

DATA_HELP = (
    "a folder of images or of parquet files, a table of file and label (.csv, .tsv, .jsonl), digits, oxford_iiit_pet, "
    "hf:NAME[:CONFIG] (docs/data.md), or tfds:NAME[/SPLIT] (SPLIT validates)"
)


def is_image_folder(spec: str) -> bool:
    """Return whether `spec` is a folder of images. Raises InputError for one that has parquet files as well."""
    if not Path(spec).is_dir():
        return False
    if not is_parquet_folder(spec):
        return True
    files = list_images(spec).files
    if files:
        raise InputError(
            f"{spec}: has images ({files[0]}) and parquet files; move one of them, or give hf:{os.path.abspath(spec)}"
        )
    return False


def open_dataset(
    spec: str, *, data_dir: str | None = None, val_fraction: float = 0.2, seed: int = 0, multi_label: bool = False
) -> Dataset:
    """Open the data set that `spec` names. data_dir: the folder of downloads and prepared tfds sets.

    val_fraction: the fraction of every class to hold out where the data set has no validation split.
    multi_label: each image has a set of labels, also if no set has more than one; see open_table.
    Raises InputError, in one line, for an unknown or invalid data set, and for multi_label and one without such sets.
    """
    if is_table(spec) and Path(spec).is_file():
        return open_table(spec, val_fraction=val_fraction, seed=seed, multi_label=multi_label)
    if spec.startswith(PREFIX) or (is_parquet_folder(spec) and not is_image_folder(spec)):
        options: dict[str, Any] = dict(val_fraction=val_fraction, seed=seed, multi_label=multi_label)
        return open_hugging_face(spec, data_dir=data_dir, **options)
    if multi_label:
        raise InputError(
            f"{spec}: has one label for each image; sets of labels are in a table ({', '.join(SUFFIXES)}) or hf:NAME"
        )
    if spec == "digits":
        return open_digits(val_fraction=val_fraction, seed=seed)
    if spec == "oxford_iiit_pet":
        return open_pets(Path(data_dir or cache_folder()) / "oxford_iiit_pet")
    if spec.startswith("tfds:"):
        name, _, split = spec.removeprefix("tfds:").partition("/")
        return open_tfds(name, val_split=split or None, data_dir=data_dir, val_fraction=val_fraction, seed=seed)
    if not Path(spec).exists():
        raise InputError(f"{spec}: no such folder, and no data set of that name; --data takes {DATA_HELP}")
    return open_folder(spec, val_fraction=val_fraction, seed=seed)
