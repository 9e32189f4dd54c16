"""The runs that a report covers: reading them, naming them apart, and comparing their settings."""

import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
from flax import nnx

from experiments.sweep.folder import PLAN, read_plan
from experiments.sweep.study import model_name, published_accuracy
from vit_jax import InputError, VisionTransformer, load_card
from vit_jax.checkpoint import CONFIG
from vit_jax.data.stored_split import read_split
from vit_jax.json_files import read_json_object
from vit_jax.saved_folder import BEST
from vit_jax.summary import count_parameters
from vit_jax.train.logging import read_metrics
from vit_jax.train.measure import Measure, measure_of
from vit_jax.train.run_folder import SPLIT, RunConfig, read_run_config


@dataclass(frozen=True)
class FinishedRun:
    """A run with at least one complete epoch.

    name: its folder's name, with as many parent folders as make it unique.
    records: the lines of metrics.jsonl that close an epoch.
    command: the experiments.finetune call that started it.
    versions: the package versions it started with.
    started, hardware: when and on what it started; "not recorded" for older runs.
    num_parameters: of its model. num_val: the number of its validation images, None for older runs.
    """

    name: str
    folder: Path
    config: RunConfig
    records: list[dict[str, Any]]
    command: str
    versions: str
    started: str
    hardware: str
    num_parameters: int
    num_val: int | None

    @property
    def model(self) -> str:
        """The name of the architecture, or of the file its weights came from."""
        return model_name(self.config)

    @property
    def best(self) -> dict[str, Any]:
        """The record of the epoch with the highest measure."""
        return max(self.records, key=lambda record: record[self.measure.name])

    @property
    def measure(self) -> Measure:
        """The measure that decides which epoch and which run is the best."""
        return measure_of(self.records[0])

    @property
    def best_value(self) -> float:
        """The highest value of the measure."""
        return self.best[self.measure.name]

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
    stored = read_json_object(folder / "config.json")
    records = [r for r in read_metrics(folder / "metrics.jsonl") if "val_accuracy" in r]
    if not records or not (folder / BEST / CONFIG).is_file():
        return None
    command = f"python -m experiments.finetune {shlex.join(stored.get('command', ()))}"
    versions = ", ".join(f"{package} {number}" for package, number in stored.get("versions", {}).items())
    started, hardware = (stored.get(key, "not recorded") for key in ("started", "hardware"))
    model_config = load_card(folder / BEST).config
    shapes = jax.eval_shape(lambda: VisionTransformer(model_config, rngs=nnx.Rngs(0)))
    num_val = len(read_split(folder / SPLIT).val.names) if (folder / SPLIT).is_file() else None
    return FinishedRun(
        name, folder, config, records, command, versions, started, hardware, count_parameters(shapes), num_val
    )


def group_by_data(runs: Sequence[FinishedRun]) -> dict[str, list[FinishedRun]]:
    """Return the runs of each data set, by a name of it that no other data set has, in the order of the first runs.

    Raises InputError for runs of single labels together with runs of sets of labels on one data set.
    """
    groups: dict[str, list[FinishedRun]] = {}
    for run in runs:
        groups.setdefault(run.config.data, []).append(run)
    for group in groups.values():
        other = next((run for run in group if run.measure != group[0].measure), None)
        if other is not None:
            raise InputError(
                f"{other.folder}: has the {other.measure.label}, and {group[0].folder} the {group[0].measure.label}, "
                "which cannot be compared; report them apart"
            )
    names = make_names_unique([Path(data) for data in groups])
    return dict(zip(names, groups.values(), strict=True))


def shorten_path(text: str) -> str:
    """Return a path below the current folder relative to it; any other path, or name, as it is."""
    path = Path(text)
    return str(path.relative_to(Path.cwd())) if path.is_absolute() and path.is_relative_to(Path.cwd()) else text


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
