"""The first statements of a program, before its imports, which take seconds. Imports only the standard library."""

import os
import runpy
import signal
import sys
from pathlib import Path
from types import FrameType

VERSION_FILE = Path(__file__).parents[1] / "vit_jax" / "version.py"
BROKEN_PIPE = 128 + 13  # as in vit_jax.errors


def exit_on_signals() -> None:
    """Exit at once at SIGINT or SIGTERM, without a traceback; vit_jax.interruption takes over while main() runs.

    Python's own handler of SIGINT raises an exception, which callbacks of imported modules drop. Ignored signals stay
    ignored.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL):
            signal.signal(number, _exit)


def _exit(number: int, frame: FrameType | None) -> None:
    os._exit(128 + number)


def exit_with_version() -> None:
    """Print the version and exit, if --version is the only argument."""
    if sys.argv[1:] == ["--version"]:
        sys.exit(print_text(describe_version()))


def describe_version() -> str:
    """Return "vit-jax" and its version, without importing vit_jax, which imports jax."""
    return f"vit-jax {runpy.run_path(str(VERSION_FILE))['VERSION']}"


def print_text(text: str) -> int:
    """Print a text and return the exit code: 0, 141 for a closed pipe, 2 with one line if it can't be written."""
    try:
        print(text, flush=True)
        return 0
    except OSError as error:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())  # Python writes the rest at exit
        os.close(null)
        if isinstance(error, BrokenPipeError):
            return BROKEN_PIPE
        print(f"error: cannot write: {error.strerror}", file=sys.stderr)
        return 2
