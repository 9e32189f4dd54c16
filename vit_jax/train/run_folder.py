"""A run's folder: config.json, metrics.jsonl, curves.png, checkpoints/ and best/."""

import json
import platform
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

from vit_jax.data.datasets import DATA_HELP
from vit_jax.errors import InputError
from vit_jax.files import atomic_write
from vit_jax.settings import check_settings, read_settings, setting
from vit_jax.train.distributed import is_first_process, sync_processes
from vit_jax.train.recipe import Recipe

FORMAT = "vit_jax_run/1"
BEST = "best"
HEADER = ("format", "command", "versions")  # of config.json, besides the fields of the config
PACKAGES = ("vit-jax", "jax", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "pillow")
Config = TypeVar("Config")


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a run of a classifier, and so everything that resuming needs. Paths are absolute."""

    recipe: Recipe
    data: str = setting(help=DATA_HELP)
    data_dir: str | None = setting(None, "folder of downloads and tensorflow-datasets")
    val_fraction: float = setting(0.2, "fraction of the images to hold out for validation", interval="[0, 1)")
    skip_corrupt: bool = setting(False, "check every image first and leave unreadable ones out")
    weights: str | None = setting(
        None, "saved model, run, foreign checkpoint or release to start from", none="from scratch"
    )

    def __post_init__(self) -> None:
        check_settings(self)


def absolute_if_path(path_or_name: str) -> str:
    """Return an existing path as an absolute one, so that a run can be resumed from anywhere, and a name as it is."""
    return str(Path(path_or_name).absolute()) if Path(path_or_name).exists() else path_or_name


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


def create_run_folder(folder: Path, config: Any, *, format: str = FORMAT) -> None:
    """Create the folder of a new run, with its config.json, and wait for all processes. The first process writes.

    config: a dataclass. Raises InputError when the folder exists and is not empty.
    """
    if is_first_process():
        check_unused(folder)
        folder.mkdir(parents=True, exist_ok=True)
        stored = {"format": format, "command": sys.argv[1:], "versions": _versions()} | asdict(config)
        with atomic_write(folder / "config.json") as path:
            path.write_text(json.dumps(stored, indent=1) + "\n")
    sync_processes("run folder")


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
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
    path = folder / "config.json"
    try:
        stored: dict[str, Any] = json.loads(path.read_text())
        if stored["format"] != format:
            raise InputError(f"format is not {format}")
        return read_settings(kind, {name: value for name, value in stored.items() if name not in HEADER})
    except FileNotFoundError as error:
        raise InputError(f"{folder}: no run to resume (no config.json); check the path") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not a run's config: {error}") from error
