"""Work done in a process of its own, whose start, memory and cores are then its alone."""

import ctypes
import gc
import multiprocessing
import os
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from vit_jax import InputError

HEAPS: Any = ctypes.CDLL(None) if os.name == "posix" else None


class Child:
    """A process that makes something once, `make(*arguments)`, and calls that as often as it is told to.

    cores: those that it may run on; None for all. The process ends when the block that holds it does.
    """

    def __init__(self, make: Callable[..., Callable[[], Any]], *arguments: Any, cores: Sequence[int] | None = None):
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # several share a GPU
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, cores, make, arguments), daemon=False)
        self._process.start()
        theirs.close()
        self._answer()

    def __call__(self) -> Any:
        """What a call of the thing made answers. Raises InputError with what went wrong there."""
        self._pipe.send(True)
        return self._answer()

    def _answer(self) -> Any:
        try:
            sound, value = self._pipe.recv()
        except EOFError:
            self._process.join()
            raise InputError(f"a measuring process ended by itself, code {self._process.exitcode}") from None
        if not sound:
            raise InputError(f"a measuring process failed: {value}")
        return value

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *error: object) -> None:
        self._pipe.close()
        self._process.join()


def _serve(pipe: Connection, cores: Sequence[int] | None, make: Callable[..., Any], arguments: Sequence[Any]) -> None:
    try:
        if cores is not None:
            os.sched_setaffinity(0, cores)
        made = make(*arguments)
        pipe.send((True, None))
        while True:
            pipe.recv()
            pipe.send((True, made()))
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        return
    except BaseException as error:
        pipe.send((False, "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]))


def resident() -> int:
    """Bytes that this process holds in memory, after what it does not use went back to the system. Linux only."""
    gc.collect()
    if hasattr(HEAPS, "malloc_trim"):
        HEAPS.malloc_trim(0)
    return _status("VmRSS")


def peak() -> int:
    """The most bytes that this process held in memory since its start, or since forget_peak(). Linux only."""
    return _status("VmHWM")


def forget_peak() -> None:
    """Let peak() begin anew."""
    Path("/proc/self/clear_refs").write_text("5")


def _status(name: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name + ":"))
    return int(line.split()[1]) * 1024
