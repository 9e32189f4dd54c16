"""The runs that a report covers: reading them, naming them apart, and comparing their settings."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from experiments.common.models import BEST
from experiments.sweep.folder import PLAN, read_plan
from experiments.sweep.study import model_name, published_accuracy
from vit_jax import InputError
from vit_jax.checkpoint import CONFIG
from vit_jax.train.logging import read_metrics
from vit_jax.train.run_folder import RunConfig, read_run_config


@dataclass(frozen=True)
class FinishedRun:
    """A run with at least one complete epoch.

    name: its folder's name, with as many parent folders as make it unique.
    records: the lines of metrics.jsonl that close an epoch.
    command: the experiments.finetune call that started it.
    versions: the package versions it started with.
    """

    name: str
    folder: Path
    config: RunConfig
    records: list[dict[str, Any]]
    command: str
    versions: str

    @property
    def model(self) -> str:
        """The name of the architecture, or of the file its weights came from."""
        return model_name(self.config)

    @property
    def best(self) -> dict[str, Any]:
        """The record of the epoch with the highest validation accuracy."""
        return max(self.records, key=lambda record: record["val_accuracy"])

    @property
    def published(self) -> float | None:
        """The accuracy that the study reports for this model and recipe, if any."""
        return published_accuracy(self.config)


class ReportedRuns(NamedTuple):
    """The runs to report, the names of unfinished runs of a sweep, and the commands of the sweeps."""

    runs: list[FinishedRun]
    unfinished: list[str]
    sweep_commands: list[str]


def find_runs(paths: Sequence[str]) -> ReportedRuns:
    """Read the runs in these folders, each once. A sweep's folder stands for its runs.

    Raises InputError for a folder that is neither a run nor a sweep, for a run without a complete epoch, and when no
    run of the sweeps has one.
    """
    folders, sweep_commands = _expand_sweeps(paths)
    unique = {folder.resolve(): (folder, is_required) for folder, is_required in folders.items()}.values()
    names = make_names_unique([folder for folder, _ in unique])
    runs: list[FinishedRun] = []
    unfinished: list[str] = []
    for (folder, is_required), name in zip(unique, names, strict=True):
        run = _read_run(folder, name) if is_required or (folder / "config.json").is_file() else None
        if run is not None:
            runs.append(run)
        elif is_required:
            raise InputError(f"{folder}: no complete epoch yet; let the run finish one")
        else:
            unfinished.append(name)
    if not runs:
        raise InputError(f"{paths[0]}: none of its runs has finished an epoch yet; let one finish one")
    return ReportedRuns(runs, unfinished, sweep_commands)


def _expand_sweeps(paths: Sequence[str]) -> tuple[dict[Path, bool], list[str]]:
    """Return the run folders, each with whether a run must be there, and the commands of the sweeps."""
    folders: dict[Path, bool] = {}
    commands: list[str] = []
    for path in paths:
        folder = Path(path)
        if (folder / PLAN).is_file():
            plan = read_plan(folder)
            for planned in plan.runs:
                folders.setdefault(folder / planned.name, False)
            commands.append(f"python -m experiments.sweep {shlex.join(plan.command)}")
        elif folder.is_dir():
            folders[folder] = True
        else:
            raise InputError(f"{folder}: no such run; give the folder of experiments.finetune or experiments.sweep")
    return folders, commands


def _read_run(folder: Path, name: str) -> FinishedRun | None:
    """Read a run, or return None if no epoch is complete."""
    config = read_run_config(folder)
    stored = json.loads((folder / "config.json").read_text())
    records = [r for r in read_metrics(folder / "metrics.jsonl") if "val_accuracy" in r]
    if not records or not (folder / BEST / CONFIG).is_file():
        return None
    command = f"python -m experiments.finetune {shlex.join(stored.get('command', ()))}"
    versions = ", ".join(f"{package} {number}" for package, number in stored.get("versions", {}).items())
    return FinishedRun(name, folder, config, records, command, versions)


def make_names_unique(folders: Sequence[Path]) -> list[str]:
    """Name each folder by the shortest end of its path that no other folder shares."""
    all_parts = [folder.absolute().parts for folder in folders]

    def shortest_unique(parts: tuple[str, ...]) -> str:
        for count in range(1, len(parts) + 1):
            end = parts[-count:]
            if sum(other[-count:] == end for other in all_parts) == 1:
                return "/".join(end)
        return str(Path(*parts))

    return [shortest_unique(parts) for parts in all_parts]


def flatten_settings(tree: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Return nested settings as dotted name -> text: numbers short, sizes as height x width."""
    flat: dict[str, str] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat |= flatten_settings(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = _format_setting(name, value)
    return flat


def _format_setting(name: str, value: Any) -> str:
    if isinstance(value, tuple | list):
        return (" x " if name == "image_size" else " to ").join(_format_setting("", item) for item in value)
    if value is None:
        return "none" if name == "crop_scale" else "the model's own"
    return f"{value:g}" if isinstance(value, float) else str(value)


def compare_settings(runs: Sequence[FinishedRun]) -> dict[str, list[str]]:
    """Return the settings, other than the model, that are not the same in all runs: name -> its text in each run."""
    flat = [flatten_settings(asdict(run.config.recipe)) | {"data": run.config.data} for run in runs]
    names = [name for name in flat[0] if name != "model" and len({settings[name] for settings in flat}) > 1]
    return {name: [settings[name] for settings in flat] for name in names}
