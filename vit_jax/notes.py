"""Notes: what a program prints besides its results, warnings and errors. --quiet silences them, and progress displays.

A result is what the program was started for: a table, a measure, the path of what was written. A warning says that
something was left out or may be wrong. All else is a note: what was chosen, how far the work is, what to do next.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_quiet: list[bool] = []  # of each program that runs in this process, one called by another last


@contextmanager
def program_notes() -> Iterator[None]:
    """Let `silence` apply until the block ends: the run of a program, or of one that it calls."""
    _quiet.append(False)
    try:
        yield
    finally:
        _quiet.pop()


def silence() -> None:
    """Print no notes until the running program ends. No effect outside a program."""
    if _quiet:
        _quiet[-1] = True


def is_quiet() -> bool:
    """Return whether the running program, or one that called it, prints no notes."""
    return any(_quiet)


def note(text: str, *, file: Any = None) -> None:
    """Print a note, unless the program is quiet. file: the stream, stdout by default."""
    if not is_quiet():
        print(text, file=file, flush=True)
