"""A run's folder: config.json, metrics.jsonl, curves.png, checkpoints/ and best/."""

import json
import platform
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

from vit_jax.errors import InputError
from vit_jax.files import atomic_write
from vit_jax.train.recipe import Recipe, recipe_from_dict

FORMAT = "vit_jax_run/1"
Config = TypeVar("Config")


@dataclass(frozen=True)
class RunConfig:
    """All that decides a run, and so all that resuming needs.

    weights: a folder or file to start from, absolute, or None from scratch.
    """

    recipe: Recipe
    data: str
    data_dir: str | None
    val_fraction: float
    skip_corrupt: bool
    weights: str | None


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in ("vit-jax", "jax", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "pillow"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def absolute_if_path(path_or_name: str) -> str:
    """A path that exists, made absolute, so that a run can be resumed from anywhere; a name as it is."""
    return str(Path(path_or_name).absolute()) if Path(path_or_name).exists() else path_or_name


def changed_source_flags(config: RunConfig, given: dict[str, Any]) -> list[str]:
    """The flags given that would change where a run's images and weights come from."""
    names = [name for name in ("data", "data_dir", "val_fraction", "weights") if name in given]
    changed = [name for name in names if given[name] != getattr(config, name)]
    changed = [name for name in changed if absolute_if_path(str(given[name])) != getattr(config, name)]
    return ["--" + name.replace("_", "-") for name in changed]


def default_folder(name: str) -> Path:
    """runs/NAME, or runs/NAME-2 and so on where that is taken."""
    base, count = Path("runs") / name, 1
    folder = base
    while folder.exists():
        count += 1
        folder = base.with_name(f"{base.name}-{count}")
    return folder


def check_unused(folder: Path) -> None:
    """Raise InputError when a new run's folder exists and is not empty."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: exists already; give --resume to go on with that run, or another --out")


def create_run_folder(folder: Path, config: Any, *, kind: str = FORMAT) -> None:
    """Make a run's folder with its config.json, of a dataclass. Raises InputError when it exists and is not empty."""
    check_unused(folder)
    folder.mkdir(parents=True, exist_ok=True)
    stored = {"format": kind, "command": sys.argv[1:], "versions": _versions()} | asdict(config)
    with atomic_write(folder / "config.json") as beside:
        beside.write_text(json.dumps(stored, indent=1) + "\n")


def read_run_config(folder: Path) -> RunConfig:
    """A fine-tuning run's config. Raises InputError when the folder is none."""

    def built(stored: dict[str, Any]) -> RunConfig:
        names = ("data", "data_dir", "val_fraction", "skip_corrupt", "weights")
        return RunConfig(recipe_from_dict(stored["recipe"]), **{name: stored[name] for name in names})

    return read_config_file(folder, FORMAT, built)


def read_config_file(folder: Path, kind: str, built: Callable[[dict[str, Any]], Config]) -> Config:
    """A run's config, of the format given, by what makes it of its JSON. Raises InputError when the folder is none."""
    path = folder / "config.json"
    try:
        stored: dict[str, Any] = json.loads(path.read_text())
        if stored.pop("format") != kind:
            raise InputError(f"format is not {kind}")
        return built(stored)
    except FileNotFoundError as error:
        raise InputError(f"{folder}: no run to resume (no config.json); check the path") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not a run's config: {error}") from error
