"""Open the data set that --data names: a folder, digits, oxford_iiit_pet, tfds:NAME[/SPLIT]."""

from pathlib import Path

from vit_jax.data.dataset import Dataset
from vit_jax.data.digits import open_digits
from vit_jax.data.folder import open_folder
from vit_jax.data.pets import open_pets
from vit_jax.data.tfds import open_tfds
from vit_jax.download import cache_folder
from vit_jax.errors import InputError

DATA_HELP = "a folder of images, digits, oxford_iiit_pet, or tfds:NAME[/SPLIT] (SPLIT validates)"


def open_dataset(spec: str, *, data_dir: str | None = None, val_fraction: float = 0.2, seed: int = 0) -> Dataset:
    """Open the data set that `spec` names. data_dir: the folder of downloads and prepared tfds sets.

    val_fraction: the fraction of every class to hold out where the data set has no validation split.
    Raises InputError, in one line, for an unknown or invalid data set.
    """
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
