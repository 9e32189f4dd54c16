"""A sweep's runs as processes: begun or resumed, watched by what they write, stopped so that they save."""

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from experiments.sweep_plan import PlannedRun
from experiments.training.metrics import read_metrics
from vit_jax import InputError
from vit_jax.files import written_file

WAITING, RUNNING, STOPPED, DONE, FAILED = "waiting", "running", "stopped", "done", "failed"
ENDED = "ended.json"  # beside the runs: what each ended with
PATIENCE_SECONDS = 120.0
PR_SET_PDEATHSIG = 1


class Status(NamedTuple):
    """Where a run stands. best: validation accuracy; seconds: of all its epochs."""

    state: str
    epoch: int
    epochs: int
    best: float | None
    seconds: float
    error: str = ""


def _with_parent() -> None:
    """In the child: SIGTERM when the sweep dies, however it does, so that no run goes on unseen (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


@dataclass
class SweepRun:
    """One run of a sweep and, while it goes, its process."""

    planned: PlannedRun
    sweep: Path
    process: subprocess.Popen[str] | None = None

    @property
    def folder(self) -> Path:
        """The run's own folder."""
        return self.sweep / self.planned.name

    @property
    def log(self) -> Path:
        """What the run printed."""
        return self.sweep / f"{self.planned.name}.log"

    def start(self, gpu: int | None) -> None:
        """Begin the run, or go on with it. Raises InputError when a process of an earlier sweep does not end."""
        self._wait_for_earlier()
        if (self.folder / "config.json").is_file():
            arguments = ["--resume", str(self.folder)]
        else:
            arguments = [*self.planned.flags, "--out", str(self.folder)]
        environment = os.environ | ({} if gpu is None else {"CUDA_VISIBLE_DEVICES": str(gpu)})
        with open(self.log, "a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "experiments.finetune", *arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                env=environment,
                start_new_session=True,  # a terminal's Ctrl-C is for the sweep, which passes it on
                preexec_fn=_with_parent,
            )

    def _wait_for_earlier(self) -> None:
        began, told = time.monotonic(), False
        while (pid := _process_of(self.folder)) is not None:
            if time.monotonic() - began > PATIENCE_SECONDS:
                raise InputError(f"{self.folder}: process {pid} of an earlier sweep is still at it; wait, or end it")
            if not told:
                print(f"{self.planned.name}: waiting for process {pid} of an earlier sweep to save", flush=True)
                told = True
            time.sleep(0.2)

    def status(self) -> Status:
        """Where the run stands, from what it has written."""
        records = [r for r in read_metrics(self.folder / "metrics.jsonl") if "val_accuracy" in r]
        epochs = _epochs(self.folder)
        best = max((r["val_accuracy"] for r in records), default=None)
        seconds = sum(r["seconds"] for r in records)
        told = _ended(self.sweep).get(self.planned.name)
        state = STOPPED if records else WAITING
        if self.process is not None:
            state = RUNNING
        elif told is not None:
            state = told["state"]
        return Status(state, len(records), epochs, best, seconds, "" if told is None else told["error"])

    def ended(self) -> bool:
        """Whether the process has ended; what it ended with is then kept, but for a run that was stopped."""
        if self.process is None or self.process.poll() is None:
            return False
        code = self.process.returncode
        self.process = None
        if code in (-signal.SIGKILL, -signal.SIGTERM) or code > 128:
            return True
        lines = self.log.read_text().splitlines()
        error = next((line for line in reversed(lines) if line.startswith("error: ")), lines[-1] if lines else "")
        record = {"state": DONE, "error": ""} if code == 0 else {"state": FAILED, "error": error}
        with written_file(self.sweep / ENDED) as beside:
            beside.write_text(json.dumps(_ended(self.sweep) | {self.planned.name: record}, indent=1) + "\n")
        return True


def _ended(sweep: Path) -> dict[str, Any]:
    path = sweep / ENDED
    return json.loads(path.read_text()) if path.is_file() else {}


def forget_failures(sweep: Path) -> None:
    """Runs that failed are tried again."""
    kept = {name: record for name, record in _ended(sweep).items() if record["state"] == DONE}
    with written_file(sweep / ENDED) as beside:
        beside.write_text(json.dumps(kept, indent=1) + "\n")


def _epochs(folder: Path) -> int:
    try:
        return int(json.loads((folder / "config.json").read_text())["recipe"]["epochs"])
    except (OSError, ValueError, KeyError):
        return 0


def _process_of(folder: Path) -> int | None:
    """A process that trains in this folder (Linux; elsewhere none is found)."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"experiments.finetune" in words and os.fsencode(folder) in words:
            return int(entry.name)
    return None
