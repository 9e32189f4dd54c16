"""A worker process for each measured program, so that its start, memory and cores are its own."""

import multiprocessing
import os
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

from vit_jax import InputError


class Worker:
    """A process that builds a program once, by `build(*arguments)`, and calls it on request.

    cores: that the process may run on; None for all. The process ends with the `with` block.
    """

    def __init__(self, build: Callable[..., Callable[[], Any]], *arguments: Any, cores: Sequence[int] | None = None):
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # several processes share a GPU
        context = multiprocessing.get_context("spawn")
        self._pipe, worker_end = context.Pipe()
        self._process = context.Process(target=_serve, args=(worker_end, cores, build, arguments), daemon=False)
        self._process.start()
        worker_end.close()
        self._receive()

    def __call__(self) -> Any:
        """Call the program and return its result. Raises InputError with the error that it raised."""
        self._pipe.send(True)
        return self._receive()

    def _receive(self) -> Any:
        try:
            succeeded, value = self._pipe.recv()
        except EOFError:
            self._process.join()
            raise InputError(f"a measuring process ended by itself, code {self._process.exitcode}") from None
        if not succeeded:
            raise InputError(f"a measuring process failed: {value}")
        return value

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *error: object) -> None:
        self._pipe.close()
        self._process.join()


def _serve(pipe: Connection, cores: Sequence[int] | None, build: Callable[..., Any], arguments: Sequence[Any]) -> None:
    try:
        if cores is not None:
            os.sched_setaffinity(0, cores)
        program = build(*arguments)
        pipe.send((True, None))
        while True:
            pipe.recv()
            pipe.send((True, program()))
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        return
    except BaseException as error:
        pipe.send((False, "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]))
