"""The data of a run: opened for a new one, and opened again, unchanged, to resume or to evaluate it."""

from pathlib import Path
from typing import NamedTuple

from vit_jax.data.dataset import Dataset
from vit_jax.data.datasets import open_dataset
from vit_jax.data.inputs import check_named
from vit_jax.data.split_changes import describe_changes
from vit_jax.data.stored_split import keep_split, read_split, record_split, restore_split
from vit_jax.errors import InputError
from vit_jax.notes import note
from vit_jax.train.run_folder import BEST, SPLIT, RunConfig, read_run_config


class RunData(NamedTuple):
    """A run's data set. is_checked: whether unreadable images are left out already, as the run asks."""

    data: Dataset
    is_checked: bool


def open_data(config: RunConfig, *, data_dir: str | None = None) -> Dataset:
    """Open the data set that a run's config names. data_dir: in place of the config's.

    Raises InputError for data that only a Python program has, and as open_dataset does.
    """
    check_named(config.data)
    return open_dataset(
        config.data,
        data_dir=data_dir or config.data_dir,
        val_fraction=config.val_fraction,
        seed=config.recipe.seed,
        multi_label=config.multi_label,
    )


def reopen_data(folder: Path, config: RunConfig, *, remedy: str, data_dir: str | None = None) -> RunData:
    """Open the data of a run again, with the split that its folder stores.

    A run of an older version has no stored split; the split is drawn again, and one line says so.
    Raises InputError, with the differences and the remedy, if the images or the classes are not those of the run.
    """
    return restore_data(folder, config, open_data(config, data_dir=data_dir), remedy=remedy)


def restore_data(folder: Path, config: RunConfig, data: Dataset, *, remedy: str) -> RunData:
    """Return the data of a run with the split that its folder stores. Prints and raises as reopen_data does."""
    if not (folder / SPLIT).is_file():
        print(f"{folder}: a run of an older version, which stores no split ({SPLIT}): it is drawn again")
        return RunData(data, is_checked=not config.skip_corrupt)
    stored = read_split(folder / SPLIT)
    changes = describe_changes(stored, record_split(data))
    if changes:
        raise InputError(f"{folder}: {config.data} has changed since the run began: {changes}; {remedy}")
    return RunData(restore_split(data, stored), is_checked=True)


def open_new_data(config: RunConfig) -> Dataset:
    """Open the data of a new run.

    If it starts from another run on the same data, which may have grown, the images of that run stay on their sides:
    an image that trained those weights does not validate this run.
    """
    data = open_data(config)
    origin = _run_of_weights(config.weights)
    if origin is not None and _same_place(read_run_config(origin).data, config.data):
        data, known, new = keep_split(data, read_split(origin / SPLIT))
        note(f"split: that of {origin} for {known:,} images; {new:,} are new")
    return data


def _run_of_weights(weights: str | None) -> Path | None:
    """Return the run that weights come from, if it stores its split: a run's folder, or best/ of one."""
    if weights is None:
        return None
    path = Path(weights)
    folders = [path, path.parent] if path.name == BEST else [path]
    return next((folder for folder in folders if (folder / SPLIT).is_file()), None)


def _same_place(first: str, second: str) -> bool:
    return first == second or (Path(first).exists() and Path(first).resolve() == Path(second).resolve())
