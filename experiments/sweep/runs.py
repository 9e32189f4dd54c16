"""A sweep's runs as processes: begun or resumed, watched by what they write, stopped so that they save."""

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from experiments.sweep.plan import PlannedRun
from vit_jax import InputError
from vit_jax.files import atomic_write
from vit_jax.train.logging import read_metrics
from vit_jax.train.signals import Interrupt

WAITING, RUNNING, STOPPED, DONE, FAILED = "waiting", "running", "stopped", "done", "failed"
ENDED = "ended.json"  # beside the runs: what each ended with
PROGRAM = (sys.executable, "-m", "experiments.finetune")
PATIENCE_SECONDS = 120.0  # how long a run of an earlier sweep, which died, may take to save
PR_SET_PDEATHSIG = 1


class Status(NamedTuple):
    """Where a run stands. best: validation accuracy; seconds: of its epochs, and since it was begun or resumed."""

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


class Process(NamedTuple):
    """A run under way. since: of time.monotonic(); seconds: of the epochs before; printed: bytes in the log before."""

    popen: "subprocess.Popen[bytes]"
    since: float
    seconds: float
    printed: int


@dataclass
class SweepRun:
    """One run of a sweep and, while it goes, its process. stopping: whether the sweep has told it to stop."""

    planned: PlannedRun
    sweep: Path
    process: Process | None = None
    stopping: bool = False

    @property
    def folder(self) -> Path:
        """The run's own folder."""
        return self.sweep / self.planned.name

    @property
    def log(self) -> Path:
        """What the run printed, in all its attempts."""
        return self.sweep / f"{self.planned.name}.log"

    def start(self, device: str | None) -> None:
        """Begin the run, or go on with it, on the CUDA device given or on whatever there is."""
        if (self.folder / "config.json").is_file():
            arguments = ["--resume", str(self.folder)]
        else:
            arguments = [*self.planned.flags, "--out", str(self.folder)]
        environment = os.environ | ({} if device is None else {"CUDA_VISIBLE_DEVICES": device})
        seconds = self.status().seconds
        with open(self.log, "ab") as log:
            popen = subprocess.Popen(
                [*PROGRAM, *arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,  # a terminal's Ctrl-C is for the sweep, which passes it on
                preexec_fn=_with_parent,
            )
            self.process = Process(popen, time.monotonic(), seconds, log.tell())

    def status(self) -> Status:
        """Where the run stands, from what it has written."""
        records = [r for r in read_metrics(self.folder / "metrics.jsonl") if "val_accuracy" in r]
        best = max((r["val_accuracy"] for r in records), default=None)
        state, seconds, error = STOPPED if records else WAITING, sum(r["seconds"] for r in records), ""
        told = _ended(self.sweep).get(self.planned.name)
        if self.process is not None:
            state, seconds = RUNNING, self._seconds(self.process)
        elif told is not None:
            state, seconds, error = told["state"], told["seconds"], told["error"]
        return Status(state, len(records), _epochs(self.folder), best, seconds, error)

    @staticmethod
    def _seconds(process: Process) -> float:
        return process.seconds + time.monotonic() - process.since

    def stop(self, number: int) -> None:
        """Pass a signal on to the process, which saves and ends."""
        if self.process is not None:
            self.stopping = True
            self.process.popen.send_signal(number)

    def wait(self, seconds: float) -> None:
        """Wait for a process that was told to stop; it is killed when that takes longer."""
        if self.process is not None:
            try:
                self.process.popen.wait(seconds)
            except subprocess.TimeoutExpired:
                self.process.popen.kill()
                self.process.popen.wait()
            self.ended()

    def ended(self) -> bool:
        """Whether the process has ended; what it ended with is then kept, but for a run that the sweep stopped."""
        if self.process is None or self.process.popen.poll() is None:
            return False
        process, self.process = self.process, None
        code = process.popen.returncode
        if self.stopping and (code < 0 or code > 128):
            return True
        record = {
            "state": FAILED if code else DONE,
            "seconds": round(self._seconds(process), 1),
            "error": self._error(code, process.printed) if code else "",
        }
        with atomic_write(self.sweep / ENDED) as beside:
            beside.write_text(json.dumps(_ended(self.sweep) | {self.planned.name: record}, indent=1) + "\n")
        return True

    def _error(self, code: int, printed: int) -> str:
        """One line for what a process ended with, by its exit code and what it printed."""
        number = -code if code < 0 else code - 128
        if number in set(signal.Signals):
            name = signal.Signals(number).name
            return f"ended by {name}" + (", as when memory runs out" if name == "SIGKILL" else "")
        lines = self.log.read_bytes()[printed:].decode(errors="replace").splitlines()
        told = next((line for line in reversed(lines) if line.startswith("error: ")), lines[-1] if lines else "")
        return told.removeprefix("error: ") or f"exit code {code}"


def _ended(sweep: Path) -> dict[str, Any]:
    path = sweep / ENDED
    return json.loads(path.read_text()) if path.is_file() else {}


def forget_failures(sweep: Path) -> None:
    """Runs that failed are tried again."""
    before = _ended(sweep)
    kept = {name: record for name, record in before.items() if record["state"] == DONE}
    if kept != before:
        with atomic_write(sweep / ENDED) as beside:
            beside.write_text(json.dumps(kept, indent=1) + "\n")


def wait_for_earlier(runs: Sequence[SweepRun], interrupt: Interrupt) -> None:
    """Wait until the processes of a sweep that died have saved, or until a signal.

    Raises InputError when one does not end.
    """
    began, told = time.monotonic(), False
    for run in runs:
        while interrupt.signal is None and (pid := _process_of(run.folder)) is not None:
            if time.monotonic() - began > PATIENCE_SECONDS:
                raise InputError(f"{run.folder}: process {pid}, not of this sweep, is at it; wait, or end it")
            if not told:
                print(f"{run.planned.name}: waiting for process {pid} of an earlier sweep to save", flush=True)
                told = True
            time.sleep(0.2)


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
