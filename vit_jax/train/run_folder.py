"""A run's folder: config.json, split.json.gz, metrics.jsonl, curves.png, checkpoints/ and best/."""

import json
import platform
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

from vit_jax.checkpoint import CONFIG
from vit_jax.data.datasets import DATA_HELP
from vit_jax.data.hugging_face_names import absolute_name
from vit_jax.errors import InputError
from vit_jax.files import atomic_write
from vit_jax.json_files import describe_malformed, read_json_object
from vit_jax.processor import describe_hardware
from vit_jax.saved_folder import BEST as BEST
from vit_jax.settings import check_settings, read_settings, setting
from vit_jax.train.distributed import is_first_process, sync_processes
from vit_jax.train.recipe import Recipe
from vit_jax.version import VERSION

FORMAT = "vit_jax_run/1"
PROGRAMS = {FORMAT: "experiments.finetune", "caption_run/1": "experiments.train_caption"}  # by the format they write
SPLIT = "split.json.gz"  # see vit_jax/data/stored_split.py
HEADER = ("format", "command", "versions", "started", "hardware")  # of config.json, besides the fields of the config
PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "pillow")
Config = TypeVar("Config")


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a run of a classifier, and so everything that resuming needs. Paths are absolute."""

    recipe: Recipe
    data: str = setting(help=DATA_HELP)
    data_dir: str | None = setting(None, "folder of downloads and tensorflow-datasets")
    val_fraction: float = setting(0.2, "fraction of the images to hold out for validation", interval="[0, 1)")
    multi_label: bool = setting(
        False, "train for sets of labels even if no image has several; else the data decide (tables and hf:NAME)"
    )
    skip_corrupt: bool = setting(False, "check every image first and leave unreadable ones out")
    weights: str | None = setting(
        None, "saved model, run, foreign checkpoint or release to start from", none="the model's release, if any"
    )
    from_scratch: bool = setting(False, "train a model that has published weights without them")

    def __post_init__(self) -> None:
        check_settings(self)
        if self.from_scratch and self.weights is not None:
            raise InputError("--from-scratch and --weights contradict one another; leave one out")


def absolute_if_path(path_or_name: str) -> str:
    """Return an existing path as an absolute one, so that a run can be resumed from anywhere, and a name as it is."""
    return str(Path(path_or_name).absolute()) if Path(path_or_name).exists() else absolute_name(path_or_name)


def default_folder(name: str) -> Path:
    """Return runs/NAME, or runs/NAME-2 and so on if it exists."""
    base, count = Path("runs") / name, 1
    folder = base
    while folder.exists():
        count += 1
        folder = base.with_name(f"{base.name}-{count}")
    return folder


def check_unused(folder: Path) -> None:
    """Raise InputError when the folder of a new run exists and is not empty."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: exists already; give --resume to go on with that run, or another --out")


def create_run_folder(
    folder: Path, config: Any, *, format: str = FORMAT, write_data: Callable[[Path], None] | None = None
) -> None:
    """Create the folder of a new run, with its config.json, and wait for all processes. The first process writes.

    config: a dataclass. write_data: writes what identifies the run's data into the folder, before the config.
    Raises InputError when the folder exists and is not empty.
    """
    if is_first_process():
        try:
            folder.mkdir(parents=True)
        except FileExistsError:  # or another process is a moment ahead
            check_unused(folder)
        if write_data is not None:
            write_data(folder)
        started = datetime.now(UTC).isoformat(timespec="seconds")
        machine = {"started": started, "hardware": describe_hardware()}
        stored = {"format": format, "command": sys.argv[1:], "versions": _versions()} | machine | asdict(config)
        with atomic_write(folder / CONFIG) as path:
            path.write_text(json.dumps(stored, indent=1) + "\n")
    sync_processes("run folder")


def provenance(config: Any, record: dict[str, Any]) -> dict[str, Any]:
    """Return the origin of a saved model: its run's data, weights and recipe, and the record of its epoch."""
    return {"data": config.data, "weights": config.weights, "recipe": config.recipe.as_dict(), "record": record}


def read_best_record(folder: Path) -> dict[str, Any]:
    """Return the record of the epoch that a run's best model is from."""
    return read_json_object(folder / BEST / CONFIG)["provenance"]["record"]


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version(), "vit-jax": VERSION}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def read_run_config(folder: Path) -> RunConfig:
    """Return the config of a classifier's run. Raises InputError as read_config does."""
    return read_config(folder, RunConfig, FORMAT)


def read_config(folder: Path, kind: type[Config], format: str) -> Config:
    """Return the config of a run as the dataclass that create_run_folder wrote.

    Raises InputError when the folder is not a run of that format, and for unknown fields.
    """
    path = folder / CONFIG
    if not path.exists():
        raise InputError(f"{folder}: no run to resume (no config.json); check the path")
    return read_config_file(path, kind, format)


def read_config_file(path: Path, kind: type[Config], format: str) -> Config:
    """Return the config of a run from its config.json.

    Raises InputError when the file is not of that format, and for unknown fields.
    """
    stored = read_json_object(path)
    found = stored.get("format")
    if found != format:
        if isinstance(found, str) and found in PROGRAMS:
            raise InputError(f"{path}: a run of {PROGRAMS[found]}; give one of {PROGRAMS[format]}")
        raise InputError(f"{path}: not a run's config: its format is {found!r:.60}, not {format!r}; give that of a run")
    try:
        return read_settings(kind, {name: value for name, value in stored.items() if name not in HEADER})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not a run's config: {describe_malformed(error)}") from error
