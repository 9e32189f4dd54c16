"""One experiments.finetune process of a sweep: starting it, stopping it, and finding one that an earlier sweep left."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from vit_jax_command import program_command

PROGRAM = program_command("finetune")
PR_SET_PDEATHSIG = 1  # of Linux's prctl


class RunProcess:
    """A running experiments.finetune, which appends what it prints to a log file."""

    def __init__(self, arguments: Sequence[str], log: Path, device: str | None):
        """Start it on a CUDA device, or on all that are visible for None."""
        environment = os.environ | ({} if device is None else {"CUDA_VISIBLE_DEVICES": device})
        with open(log, "ab") as file:
            self._log, self._log_start = log, file.tell()
            self._start = time.monotonic()
            self._popen = subprocess.Popen(
                [*PROGRAM, *arguments],
                stdout=file,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,  # a terminal's Ctrl-C goes to the sweep, which passes it on
                preexec_fn=_terminate_with_parent if sys.platform == "linux" else None,
            )

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start

    @property
    def returncode(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._popen.poll()

    def send_signal(self, number: int) -> None:
        """Send a signal, on which the program saves and ends."""
        self._popen.send_signal(number)

    def wait_or_kill(self, seconds: float) -> None:
        """Wait for its end, and kill it after `seconds`."""
        try:
            self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()

    def error(self) -> str:
        """Return one line on a failure: its signal, or its error message, or the last line it printed."""
        code = self._popen.returncode
        number = -code if code < 0 else code - 128
        if number in set(signal.Signals):
            name = signal.Signals(number).name
            return f"ended by {name}" + (", as when memory runs out" if name == "SIGKILL" else "")
        lines = self._log.read_bytes()[self._log_start :].decode(errors="replace").splitlines()
        last = lines[-1] if lines else ""
        message = next((line for line in reversed(lines) if line.startswith("error: ")), last)
        return message.removeprefix("error: ") or f"exit code {code}"


def _terminate_with_parent() -> None:
    """In the child: have Linux send SIGTERM when the sweep dies, so that no run outlives it unnoticed."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def find_process(folder: Path) -> int | None:
    """Return the id of a process that trains in this folder (Linux only; None elsewhere)."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if os.fsencode(folder) in arguments and any(argument.endswith(b"finetune") for argument in arguments):
            return int(entry.name)
    return None
