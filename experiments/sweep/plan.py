"""The plan of a sweep: every model with every seed and every combination of settings, as experiments.finetune calls."""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from experiments import finetune
from experiments.common.training import parse_config
from experiments.sweep.study import PUBLISHED, QUICK_DIGITS, QUICK_FLAGS, QUICK_PICTURES, STUDY_DATA, STUDY_SIZE
from vit_jax import CONFIGS, InputError
from vit_jax.notes import program_notes
from vit_jax.suggest import describe_unknown
from vit_jax.train.run_folder import RunConfig, absolute_if_path
from weights_convert.hub.releases import NEVER_RELEASED, RELEASES

RESERVED_FLAGS = {  # flags of experiments.finetune that the sweep sets, and the sweep's flag for each
    "out": "--out",
    "resume": "--resume",
    "data": "--data",
    "model": "--models",
    "seed": "--seeds",
}


@dataclass(frozen=True)
class PlannedRun:
    """A run of a sweep. name: of its folder within the sweep's. flags: for experiments.finetune, without --out."""

    name: str
    model: str
    flags: tuple[str, ...]

    def config(self) -> RunConfig:
        """Return the config that experiments.finetune derives from the flags. Raises or exits as it does."""
        with program_notes():  # their --quiet is not the sweep's
            return parse_config(finetune.PROGRAM, self.flags)


@dataclass(frozen=True)
class SweepPlan:
    """The runs of a sweep. report: whether a report follows them. command: the sweep's own arguments."""

    data: str
    runs: tuple[PlannedRun, ...]
    report: bool = False
    command: tuple[str, ...] = field(default=(), compare=False)


def make_plan(
    *,
    data: str | None,
    models: Sequence[str] | None,
    seeds: Sequence[int],
    settings: Sequence[str],
    flags: Sequence[str],
    weights_dir: str | None = None,
    scratch: bool = False,
    quick: bool = False,
    command: Sequence[str] = (),
) -> SweepPlan:
    """Plan a run for every model, seed and combination of settings.

    Raises InputError for an unknown model, an invalid setting, flags that experiments.finetune refuses, and two runs
    with the same name.
    """
    for flag in flags:
        _check_not_reserved(flag, "--")
    data = absolute_if_path(data or ("digits" if quick else STUDY_DATA))
    quick_flags: list[str] = []
    if quick:
        kind = "digits" if data == "digits" else "pictures"
        models = models or (QUICK_DIGITS if kind == "digits" else QUICK_PICTURES)
        quick_flags, scratch = QUICK_FLAGS[kind], scratch or weights_dir is None
    models = models or list(PUBLISHED)
    unknown = next((model for model in models if model not in CONFIGS), None)
    if unknown is not None:
        raise InputError(describe_unknown("model", unknown, CONFIGS))
    runs = []
    for model, seed, chosen in itertools.product(models, seeds, expand_settings(settings)):
        name = _run_name(model, chosen, seed if len(seeds) > 1 else None)
        setting_flags = [f"--{key.replace('_', '-')}={value}" for key, value in chosen.items()]
        weights = weights_flags(model, weights_dir, scratch=scratch)
        size = STUDY_SIZE if weights and data == STUDY_DATA else []
        fixed = ["--data", data, "--model", model, *weights, *size, *quick_flags]
        runs.append(PlannedRun(name, model, (*fixed, "--seed", str(seed), *setting_flags, *flags)))
    _check_runs(runs)
    return SweepPlan(data, tuple(runs), report=quick, command=tuple(command))


def expand_settings(settings: Sequence[str]) -> list[dict[str, str]]:
    """Return every combination of settings of the form NAME=VALUE,VALUE. Raises InputError for another form."""
    names, values = [], []
    for text in settings:
        name, equals, listed = text.partition("=")
        if not equals or not re.fullmatch(r"[a-z][a-z0-9_-]*", name) or not all(listed.split(",")):
            raise InputError(f"--set {text}: not a setting; give NAME=VALUE or NAME=VALUE,VALUE, as learning_rate=1e-5")
        _check_not_reserved(f"--{name.replace('_', '-')}", "--set")
        names.append(name)
        values.append(listed.split(","))
    return [dict(zip(names, chosen, strict=True)) for chosen in itertools.product(*values)]


def weights_flags(model: str, weights_dir: str | None, *, scratch: bool) -> list[str]:
    """Return the flag for a model's weights: a file or folder of that name in `weights_dir`, else its release if any.

    Raises InputError when `weights_dir` has no weights for it, and for a model that was not released.
    """
    if scratch:
        return ["--from-scratch"] if model in (*RELEASES, *NEVER_RELEASED) else []
    if weights_dir is not None:
        for name in (f"{model}.pth", f"{model}.safetensors", model):
            if (Path(weights_dir) / name).exists():
                return ["--weights", absolute_if_path(str(Path(weights_dir) / name))]
        raise InputError(f"{weights_dir}: no weights of {model} ({model}.pth); leave --weights-dir out to fetch them")
    if model in NEVER_RELEASED:
        raise InputError(f"{model} was never released, {NEVER_RELEASED[model]} was; give --weights-dir or --scratch")
    return ["--weights", model] if model in RELEASES else []


def _check_not_reserved(flag: str, source: str) -> None:
    name = flag.partition("=")[0].removeprefix("--")
    if name == "config":
        raise InputError(f"{source} {flag}: the runs of a sweep read no file; give their flags here")
    if name in RESERVED_FLAGS:
        raise InputError(f"{source} {flag}: the sweep sets that for its runs; use its own flag {RESERVED_FLAGS[name]}")


def _run_name(model: str, settings: dict[str, str], seed: int | None) -> str:
    parts = [model, *(f"{name}-{value}" for name, value in settings.items())]
    parts += [] if seed is None else [f"seed-{seed}"]
    return re.sub(r"[^A-Za-z0-9_.=+-]", "_", "_".join(parts))


def _check_runs(runs: Sequence[PlannedRun]) -> None:
    """Check that names are unique and that experiments.finetune accepts the flags."""
    names = [run.name for run in runs]
    duplicate = next((name for name in names if names.count(name) > 1), None)
    if duplicate is not None:
        raise InputError(f"two runs would be called {duplicate}; give each model, seed and setting once")
    for run in runs:
        run.config()
