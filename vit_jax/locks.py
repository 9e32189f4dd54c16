"""Locks that keep two processes out of one output folder, on one host or, where the file system can, on several."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from vit_jax.errors import InputError

LOCK = ".lock"


@contextmanager
def lock_folder(folder: Path, work: str, *, name: str = LOCK) -> Iterator[None]:
    """Lock a folder while the block runs, by a file in it. The system releases the lock of a process that is killed.

    The file is removed at the end. A folder that does not exist is created, with its parents; those that are
    empty then are removed again.
    work: what the holder does, for the message: "another process {work}".
    Raises InputError when another process holds the lock.
    """
    created = [path for path in (folder, *folder.parents) if not path.exists()]  # the innermost first
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / name)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise InputError(f"{folder}: another process {work}; wait for it, or stop it first") from None
    except NotImplementedError:  # of filelock
        print(f"{folder}: its file system has no locks, so a second process is not noticed", file=sys.stderr)
    try:
        yield
    finally:
        with suppress(OSError):  # Windows refuses, and filelock removes it there
            (folder / name).unlink(missing_ok=True)
        lock.release()
        with suppress(OSError):  # one is not empty, or gone
            for path in created:
                path.rmdir()
