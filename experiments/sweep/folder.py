"""A sweep's folder: its plan in sweep.json, and the lock that keeps two sweeps out of one folder."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from experiments.sweep.plan import PlannedRun, SweepPlan
from vit_jax import InputError
from vit_jax.files import atomic_write

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
        raise InputError(f"{folder}: another process runs this sweep; wait for it, or stop it first") from None
    try:
        yield
    finally:
        lock.release()
