"""The runs that a report is of: found, told apart by name, and in what their settings differ."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from experiments.common.models import BEST
from experiments.sweep.plan import PLAN, read_plan
from experiments.sweep.study import model_name, published
from vit_jax import InputError
from vit_jax.checkpoint import CONFIG
from vit_jax.train import run_folder as run
from vit_jax.train.logging import read_metrics
from vit_jax.train.run_folder import RunConfig


@dataclass(frozen=True)
class Finished:
    """A run with at least one whole epoch.

    name: its folder's, with as much of the path before it as tells it from the others. records: of its epochs.
    command: of experiments.finetune, as it was begun. versions: of what it ran with.
    """

    name: str
    folder: Path
    config: RunConfig
    records: list[dict[str, Any]]
    command: str
    versions: str

    @property
    def model(self) -> str:
        """The architecture's name, or where its weights came from."""
        return model_name(self.config)

    @property
    def best(self) -> dict[str, Any]:
        """The epoch of the highest validation accuracy."""
        return max(self.records, key=lambda record: record["val_accuracy"])

    @property
    def published(self) -> float | None:
        """The study's figure for it, if it has one."""
        return published(self.config)


class Found(NamedTuple):
    """Runs with a whole epoch; the names of a sweep's runs without; the commands of the sweeps."""

    runs: list[Finished]
    without: list[str]
    sweeps: list[str]


def find_runs(given: Sequence[str]) -> Found:
    """The runs in the folders given, a sweep's folder standing for its runs; each once.

    Raises InputError for what is neither a run nor a sweep, and when no run has a whole epoch.
    """
    places: dict[Path, bool] = {}  # folder -> whether a run must be there
    sweeps: list[str] = []
    for name in given:
        folder = Path(name)
        if (folder / PLAN).is_file():
            plan = read_plan(folder)
            places |= {folder / planned.name: False for planned in plan.runs if folder / planned.name not in places}
            sweeps.append(f"python -m experiments.sweep {shlex.join(plan.command)}")
        elif folder.is_dir():
            places[folder] = True
        else:
            raise InputError(f"{folder}: no such run; give the folder of experiments.finetune or experiments.sweep")
    unique = list({place.resolve(): place for place in places}.values())
    names = dict(zip(unique, make_names_unique(unique), strict=True))
    finished = {place: _finished(place, names[place]) for place in unique if places[place] or _begun(place)}
    runs = [found for found in finished.values() if found is not None]
    for place, found in finished.items():
        if found is None and places[place]:
            raise InputError(f"{place}: no whole epoch yet; let the run finish one")
    if not runs:
        raise InputError(f"{given[0]}: none of its runs has finished an epoch yet; let one finish one")
    return Found(runs, [names[place] for place in unique if finished.get(place) is None], sweeps)


def _begun(place: Path) -> bool:
    return (place / "config.json").is_file()


def _finished(folder: Path, name: str) -> Finished | None:
    config = run.read_run_config(folder)
    stored = json.loads((folder / "config.json").read_text())
    records = [r for r in read_metrics(folder / "metrics.jsonl") if "val_accuracy" in r]
    if not records or not (folder / BEST / CONFIG).is_file():
        return None
    command = f"python -m experiments.finetune {shlex.join(stored.get('command', ()))}"
    versions = ", ".join(f"{package} {number}" for package, number in stored.get("versions", {}).items())
    return Finished(name, folder, config, records, command, versions)


def make_names_unique(folders: Sequence[Path]) -> list[str]:
    """A name for each folder: its own, with its parents' before it as far as others have the same."""
    parts = [folder.absolute().parts for folder in folders]

    def name(mine: tuple[str, ...]) -> str:
        for count in range(1, len(mine) + 1):
            end = mine[-count:]
            if sum(other[-count:] == end for other in parts) == 1:
                return "/".join(end)
        return str(Path(*mine))

    return [name(mine) for mine in parts]


def flat_settings(tree: dict[str, Any], before: str = "") -> dict[str, str]:
    """Nested settings as name -> text; numbers short, sizes as height x width."""
    found: dict[str, str] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            found |= flat_settings(value, f"{before}{name}.")
        else:
            found[before + name] = _text(name, value)
    return found


def _text(name: str, value: Any) -> str:
    if isinstance(value, tuple | list):
        return (" x " if name == "image_size" else " to ").join(_text("", item) for item in value)
    if value is None:
        return "none" if name == "crop_scale" else "the model's own"
    return f"{value:g}" if isinstance(value, float) else str(value)


def differing_settings(runs: Sequence[Finished]) -> dict[str, list[str]]:
    """The settings in which runs differ, but for the model: name -> a text for each run."""
    flat = [flat_settings(asdict(found.config.recipe)) | {"data": found.config.data} for found in runs]
    names = [name for name in flat[0] if name != "model" and len({settings[name] for settings in flat}) > 1]
    return {name: [settings[name] for settings in flat] for name in names}
