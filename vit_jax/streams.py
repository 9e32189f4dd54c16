"""Standard output and error of a program: every character can be printed, and a reader may close the pipe."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def escape_unprintable() -> None:
    """Print characters outside the encoding of stdout and stderr as escapes, such as \\xe9, in place of an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def flush_at_end() -> Iterator[None]:
    """Flush stdout when the block ends, or exits the program, so that a failure to write is raised within it."""
    try:
        yield
    except SystemExit:
        _flush(sys.stdout)
        raise
    _flush(sys.stdout)


def discard_unwritten() -> None:
    """Send what stdout and stderr can't write to the null device, so that Python does not report it at exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            _flush(stream)
        except OSError:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)


def _flush(stream: Any) -> None:
    if stream is not None:  # a program without a console
        stream.flush()
