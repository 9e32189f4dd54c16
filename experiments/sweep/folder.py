"""A sweep's folder: its plan in sweep.json."""

import json
from dataclasses import asdict
from pathlib import Path

from experiments.sweep.plan import PlannedRun, SweepPlan
from vit_jax import InputError
from vit_jax.files import atomic_write
from vit_jax.json_files import describe_malformed, read_json_object

PLAN, FORMAT = "sweep.json", "vit_jax_sweep/1"


def check_unused(folder: Path, plan: SweepPlan) -> None:
    """Raise InputError when a new sweep's folder holds another sweep, or anything else."""
    if (folder / PLAN).is_file():
        if read_plan(folder) != plan:
            raise InputError(f"{folder}: holds another sweep; continue that one by --resume {folder}, or give --out")
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: exists already and is no sweep; give another --out")


def write_plan(folder: Path, plan: SweepPlan) -> None:
    """Write a new sweep's plan; keep an existing one that is the same. Raises InputError as check_unused does."""
    check_unused(folder, plan)
    if not (folder / PLAN).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(folder / PLAN) as temporary:
            temporary.write_text(json.dumps({"format": FORMAT} | asdict(plan), indent=1) + "\n")


def read_plan(folder: Path) -> SweepPlan:
    """Read a sweep's plan. Raises InputError when the folder holds none."""
    path = folder / PLAN
    try:
        stored = read_json_object(path)
    except FileNotFoundError as error:
        raise InputError(f"{folder}: no sweep (no {PLAN}); check the path") from error
    try:
        if stored["format"] != FORMAT:
            raise InputError(f"its format is {stored['format']!r}, not {FORMAT!r}")
        runs = tuple(PlannedRun(run["name"], run["model"], tuple(run["flags"])) for run in stored["runs"])
        return SweepPlan(stored["data"], runs, stored.get("report", False), tuple(stored.get("command", ())))
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a sweep's plan: {describe_malformed(error)}") from error
