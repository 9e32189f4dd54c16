"""SIGINT and SIGTERM end a program: the first one raises Interruption, a second one exits at once."""

import _thread
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
RETRY_SECONDS = 0.01


class Interruption(KeyboardInterrupt):
    """A signal asks the program to end. number: of the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class _Handler:
    """Raises Interruption at the first signal. Exits at the next one, without a traceback and without cleaning up."""

    def __init__(self) -> None:
        self.has_raised = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.has_raised:
            os._exit(128 + number)
        self.has_raised = True
        raise Interruption(number)


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise Interruption in the main thread at a signal of SIGNALS while the block runs.

    Ignored signals stay ignored. Does nothing outside the main thread, which is the only one that handles signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler, hook = _Handler(), sys.unraisablehook
    previous = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        for number in previous:
            if previous[number] not in (signal.SIG_IGN, None):  # None: not set by Python, which can't set it again
                signal.signal(number, handler)
        sys.unraisablehook = print_unraisable
        yield
    finally:
        if sys.unraisablehook is print_unraisable:
            sys.unraisablehook = hook
        for number in previous:
            if signal.getsignal(number) is handler:
                signal.signal(number, previous[number])


def pass_on(number: int) -> None:
    """Pass a signal on to the handler that the process has set before; Python's own handlers don't get it.

    Programs exit there (weights_convert/startup.py). Otherwise jax may crash while Python ends, with a computation in
    one of its threads.
    """
    handler = signal.getsignal(number)
    if callable(handler) and handler is not signal.default_int_handler:
        signal.raise_signal(number)


def print_unraisable(unraisable: Any) -> None:
    """Print an exception that cannot be raised, as Python does; a hook for sys.unraisablehook.

    Python drops exceptions in callbacks such as jax's in the garbage collector. Interruption is raised again a moment
    later instead.
    """
    error = unraisable.exc_value
    handler = signal.getsignal(error.number) if isinstance(error, Interruption) else None
    if isinstance(handler, _Handler):
        handler.has_raised = False
        threading.Timer(RETRY_SECONDS, signal_main_thread, [error.number]).start()
    else:
        sys.__unraisablehook__(unraisable)


def signal_main_thread(number: int) -> None:
    """Send a signal to the main thread, which also ends a system call that it waits in (not on Windows)."""
    main_thread = threading.main_thread().ident
    if hasattr(signal, "pthread_kill") and main_thread is not None:
        signal.pthread_kill(main_thread, number)
    else:
        _thread.interrupt_main(signal.Signals(number))
