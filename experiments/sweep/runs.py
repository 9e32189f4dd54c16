"""The runs of a sweep and their states: waiting, running, stopped, done or failed."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from experiments.sweep.plan import PlannedRun
from experiments.sweep.process import RunProcess
from vit_jax.files import atomic_write
from vit_jax.json_files import read_json_object
from vit_jax.train.logging import read_metrics
from vit_jax.train.measure import measure_of

WAITING, RUNNING, STOPPED, DONE, FAILED = "waiting", "running", "stopped", "done", "failed"
ENDED = "ended.json"  # in the sweep's folder: how each run ended


class Status(NamedTuple):
    """The state of a run. best: validation accuracy or mAP; seconds: of training, over all attempts."""

    state: str
    epoch: int
    epochs: int
    best: float | None
    seconds: float
    error: str = ""


@dataclass
class SweepRun:
    """One run of a sweep and, while it runs, its process.

    seconds_before: of training in earlier attempts. is_stopping: the sweep has sent it a signal.
    """

    planned: PlannedRun
    sweep: Path
    process: RunProcess | None = None
    seconds_before: float = 0.0
    is_stopping: bool = False

    @property
    def folder(self) -> Path:
        """The run's own folder."""
        return self.sweep / self.planned.name

    @property
    def log(self) -> Path:
        """The file with everything that the run printed, in all attempts."""
        return self.sweep / f"{self.planned.name}.log"

    def start(self, device: str | None) -> None:
        """Start or resume the run, on a CUDA device or, for None, on all that are visible."""
        if (self.folder / "config.json").is_file():
            arguments = ["--resume", str(self.folder)]
        else:
            arguments = [*self.planned.flags, "--out", str(self.folder)]
        self.seconds_before = self.status().seconds
        self.process = RunProcess(arguments, self.log, device)

    def status(self) -> Status:
        """Return the run's state, from the files that it and the sweep have written."""
        records = [r for r in read_metrics(self.folder / "metrics.jsonl") if "val_accuracy" in r]
        best = max((r[measure_of(r).name] for r in records), default=None)
        state, seconds, error = STOPPED if records else WAITING, sum(r["seconds"] for r in records), ""
        ended = _read_ended(self.sweep).get(self.planned.name)
        if self.process is not None:
            state, seconds = RUNNING, self._seconds(self.process)
        elif ended is not None:
            state, seconds, error = ended["state"], ended["seconds"], ended["error"]
        return Status(state, len(records), _read_epochs(self.folder), best, seconds, error)

    def _seconds(self, process: RunProcess) -> float:
        return self.seconds_before + process.seconds

    def stop(self, number: int) -> None:
        """Send a signal to the process, which saves and ends."""
        if self.process is not None:
            self.is_stopping = True
            self.process.send_signal(number)

    def wait(self, seconds: float) -> None:
        """Wait for a process that was stopped, and kill it after `seconds`."""
        if self.process is not None:
            self.process.wait_or_kill(seconds)
            self.poll()

    def poll(self) -> bool:
        """Return whether the process has just ended; record how, unless the sweep stopped it."""
        if self.process is None or self.process.returncode is None:
            return False
        process, self.process = self.process, None
        code = process.returncode
        assert code is not None
        if self.is_stopping and (code < 0 or code > 128):
            return True
        record = {
            "state": FAILED if code else DONE,
            "seconds": round(self._seconds(process), 1),
            "error": process.error() if code else "",
        }
        _write_ended(self.sweep, _read_ended(self.sweep) | {self.planned.name: record})
        return True


def forget_failures(sweep: Path) -> None:
    """Drop the records of failed runs, so that they are tried again."""
    ended = _read_ended(sweep)
    done = {name: record for name, record in ended.items() if record["state"] == DONE}
    if done != ended:
        _write_ended(sweep, done)


def unfinished_runs(runs: Sequence[SweepRun]) -> list[SweepRun]:
    """Return the runs that are not done."""
    return [run for run in runs if run.status().state != DONE]


def _read_ended(sweep: Path) -> dict[str, Any]:
    path = sweep / ENDED
    return read_json_object(path) if path.is_file() else {}


def _write_ended(sweep: Path, ended: dict[str, Any]) -> None:
    with atomic_write(sweep / ENDED) as temporary:
        temporary.write_text(json.dumps(ended, indent=1) + "\n")


def _read_epochs(folder: Path) -> int:
    """Return the number of epochs that a run is to train, or 0 before it has started."""
    try:
        return int(json.loads((folder / "config.json").read_text())["recipe"]["epochs"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0
