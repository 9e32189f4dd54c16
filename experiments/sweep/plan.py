"""What a sweep is made of: its runs, each a call of experiments.finetune, kept in sweep.json."""

import itertools
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from experiments import finetune
from experiments.sweep.study import PUBLISHED, QUICK_DIGITS, QUICK_FLAGS, QUICK_PICTURES, STUDY_DATA
from vit_jax import CONFIGS, InputError
from vit_jax.files import atomic_write
from vit_jax.train.run_folder import RunConfig, absolute_if_path
from weights_convert.hub.releases import RELEASES

PLAN, FORMAT = "sweep.json", "vit_jax_sweep/1"
OURS = {  # what a sweep says itself to its runs, and by which flag
    "out": "--out",
    "resume": "--resume",
    "data": "--data",
    "model": "--models",
    "seed": "--seeds",
}


@dataclass(frozen=True)
class PlannedRun:
    """A run of a sweep. name: of its folder in the sweep's. flags: what experiments.finetune is given beside --out."""

    name: str
    model: str
    flags: tuple[str, ...]

    def config(self) -> RunConfig:
        """What experiments.finetune makes of the flags. Raises InputError, or ends the program, as it does itself."""
        return finetune._new_run(finetune._parser().parse_args(list(self.flags)))[1]


@dataclass(frozen=True)
class SweepPlan:
    """All that a sweep runs. report: whether a report follows. command: the sweep's own arguments."""

    data: str
    runs: tuple[PlannedRun, ...]
    report: bool = False
    command: tuple[str, ...] = field(default=(), compare=False)


def settings_grid(given: list[str]) -> list[dict[str, str]]:
    """Every combination of settings given as NAME=VALUE,VALUE. Raises InputError for what is none."""
    names, values = [], []
    for text in given:
        name, equals, listed = text.partition("=")
        if not equals or not re.fullmatch(r"[a-z][a-z0-9_-]*", name) or not all(listed.split(",")):
            raise InputError(f"--set {text}: not a setting; give NAME=VALUE or NAME=VALUE,VALUE, as learning_rate=1e-5")
        _check_not_ours(f"--{name.replace('_', '-')}", "--set")
        names.append(name)
        values.append(listed.split(","))
    return [dict(zip(names, chosen, strict=True)) for chosen in itertools.product(*values)]


def _check_not_ours(flag: str, where: str) -> None:
    name = flag.partition("=")[0].removeprefix("--")
    if name in OURS:
        raise InputError(f"{where} {flag}: the sweep gives its runs that itself; use the sweep's own {OURS[name]}")


def weights_of(model: str, weights_dir: str | None, *, scratch: bool) -> list[str]:
    """The flag for a model's weights: a file or folder of its name, its release, or none where it has none.

    Raises InputError when the folder of weights has none for it.
    """
    if scratch:
        return []
    if weights_dir is not None:
        for name in (f"{model}.pth", f"{model}.safetensors", model):
            if (Path(weights_dir) / name).exists():
                return ["--weights", absolute_if_path(str(Path(weights_dir) / name))]
        raise InputError(f"{weights_dir}: no weights of {model} ({model}.pth); leave --weights-dir out to fetch them")
    return ["--weights", model] if model in RELEASES else []


def make_plan(
    *,
    data: str | None,
    models: list[str] | None,
    seeds: list[int],
    settings: list[str],
    flags: list[str],
    weights_dir: str | None = None,
    scratch: bool = False,
    quick: bool = False,
    command: list[str] | None = None,
) -> SweepPlan:
    """The runs that flags ask for: every model with every seed and every combination of settings.

    Raises InputError for an unknown model, a setting that is none, flags that experiments.finetune refuses, and two
    runs of one name.
    """
    for flag in flags:
        _check_not_ours(flag, "--")
    place = absolute_if_path(data or ("digits" if quick else STUDY_DATA))
    more: list[str] = []
    if quick:
        kind = "digits" if place == "digits" else "pictures"
        models = models or list(QUICK_DIGITS if kind == "digits" else QUICK_PICTURES)
        more, scratch = QUICK_FLAGS[kind], scratch or weights_dir is None
    models = models or list(PUBLISHED)
    unknown = next((model for model in models if model not in CONFIGS), None)
    if unknown is not None:
        raise InputError(f"unknown model {unknown!r}: one of {', '.join(CONFIGS)}")
    runs = []
    for model, seed, chosen in itertools.product(models, seeds, settings_grid(settings)):
        parts = [model, *(f"{name}-{value}" for name, value in chosen.items())]
        parts += [f"seed-{seed}"] if len(seeds) > 1 else []
        own = [f"--{name.replace('_', '-')}={value}" for name, value in chosen.items()]
        given = ["--data", place, "--model", model, *weights_of(model, weights_dir, scratch=scratch)]
        name = re.sub(r"[^A-Za-z0-9_.=+-]", "_", "_".join(parts))
        runs.append(PlannedRun(name, model, (*given, *more, "--seed", str(seed), *own, *flags)))
    names = [run.name for run in runs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"two runs would be called {twice}; give each model, seed and setting once")
    for run in runs:
        run.config()
    return SweepPlan(place, tuple(runs), report=quick, command=tuple(command or ()))


def refuse_other(folder: Path, plan: SweepPlan) -> None:
    """Raise InputError when a new sweep's folder holds another sweep, or something that is none."""
    if (folder / PLAN).is_file():
        if read_plan(folder) != plan:
            raise InputError(f"{folder}: holds another sweep; go on with that one by --resume {folder}, or give --out")
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: exists already and is no sweep; give another --out")


def keep_plan(folder: Path, plan: SweepPlan) -> None:
    """Write the plan of a new sweep; one that is there, which must be the same, stays. Raises as refuse_other."""
    refuse_other(folder, plan)
    if not (folder / PLAN).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(folder / PLAN) as beside:
            beside.write_text(json.dumps({"format": FORMAT} | asdict(plan), indent=1) + "\n")


def read_plan(folder: Path) -> SweepPlan:
    """A sweep's plan. Raises InputError when the folder is none."""
    path = folder / PLAN
    try:
        stored: dict[str, Any] = json.loads(path.read_text())
        if stored["format"] != FORMAT:
            raise InputError(f"{path}: format is not {FORMAT}")
        runs = tuple(PlannedRun(run["name"], run["model"], tuple(run["flags"])) for run in stored["runs"])
        return SweepPlan(stored["data"], runs, stored.get("report", False), tuple(stored.get("command", ())))
    except FileNotFoundError as error:
        raise InputError(f"{folder}: no sweep (no {PLAN}); check the path") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a sweep's plan: {error}") from error


@contextmanager
def lock_sweep(folder: Path) -> Iterator[None]:
    """Lock a sweep's folder while the block runs. Raises InputError when another process holds the lock."""
    lock = FileLock(folder / f"{PLAN}.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise InputError(f"{folder}: another process is at this sweep; wait for it, or end it first") from None
    try:
        yield
    finally:
        lock.release()
