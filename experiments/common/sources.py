"""The state of the file that a result was made from, to tell whether it has changed since."""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple


class Source(NamedTuple):
    """A file's size in bytes, time of change in nanoseconds, and SHA-256 in hexadecimal digits."""

    size: int
    modified: int
    sha256: str


def read_source(path: Path) -> Source:
    """Return the state of a file."""
    status = path.stat()
    return Source(status.st_size, status.st_mtime_ns, _hash(path))


def is_unchanged(path: Path, stored: Any) -> bool:
    """Return whether a file has the stored state, a Source or its fields. It is read only if size or time differ."""
    if not isinstance(stored, list | tuple) or len(stored) != len(Source._fields):
        return False
    source, status = Source(*stored), path.stat()
    return (status.st_size, status.st_mtime_ns) == (source.size, source.modified) or _hash(path) == source.sha256


def _hash(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
