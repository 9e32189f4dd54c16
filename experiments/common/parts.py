"""Results of numbered items in parts, files of arrays that appear one by one, so that work can stop at any moment."""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.common.team import SharedFolder
from vit_jax import InputError
from vit_jax.files import atomic_write
from vit_jax.locks import LOCK
from vit_jax.notes import note

SETTINGS = "settings.json"
MAX_PART, PARTS = 1024, 64  # at most so many items in a part; about so many parts of fewer items
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Parts:
    """`count` items in parts of `size`, files of a folder. Every item belongs to one part."""

    folder: Path
    count: int
    size: int

    @classmethod
    def of(cls, folder: Path, count: int, batch_size: int) -> "Parts":
        """Return the parts of `count` items, each of one or more full batches, so that all processes batch alike."""
        size = min(MAX_PART, -(-count // PARTS))
        return cls(folder, count, max(1, -(-size // batch_size)) * batch_size)

    @property
    def numbers(self) -> range:
        """The numbers of all parts."""
        return range(-(-self.count // self.size))

    def items(self, number: int) -> range:
        """Return the items of a part."""
        return range(number * self.size, min((number + 1) * self.size, self.count))

    def prepare(self, settings: dict[str, Any]) -> None:
        """Create the folder for work with these settings, JSON-able; discard parts of work with others."""
        if not self.is_prepared(settings):
            self.folder.mkdir(exist_ok=True)
            for path in self.folder.iterdir():
                if path.name != LOCK:  # which the caller holds
                    path.unlink()
            with atomic_write(self.folder / SETTINGS) as temporary:
                temporary.write_text(json.dumps(settings))

    def is_prepared(self, settings: dict[str, Any]) -> bool:
        """Return whether the folder is one for work with these settings."""
        try:
            return json.loads((self.folder / SETTINGS).read_text()) == settings
        except (OSError, ValueError):
            return False

    def select_pending(self, numbers: Sequence[int]) -> list[int]:
        """Return the parts among these that do not exist yet."""
        existing = set(os.listdir(self.folder))
        return [number for number in numbers if self._path(number).name not in existing]

    def write(self, numbers: Sequence[int], chunks: Iterable[tuple[np.ndarray, Arrays]]) -> None:
        """Write parts from a stream of results, each as soon as a later part begins.

        chunks: the items that have results, in the order of the parts, and arrays with a row for each.
        """
        left = list(numbers)
        rows: list[tuple[np.ndarray, Arrays]] = []
        for items, arrays in chunks:
            for number in dict.fromkeys((items // self.size).tolist()):
                while left[0] != number:
                    self._write(left.pop(0), rows)
                    rows = []
                chosen = items // self.size == number
                rows.append((items[chosen], {name: values[chosen] for name, values in arrays.items()}))
        while left:
            self._write(left.pop(0), rows)
            rows = []

    def read(self) -> Iterator[tuple[np.ndarray, Arrays]]:
        """Yield the items that have results, in order, and their arrays, by parts. Raises InputError without a part."""
        for number in self.numbers:
            try:
                with np.load(self._path(number)) as stored:
                    arrays = {name: stored[name] for name in stored.files}
            except FileNotFoundError as error:
                problem = "missing; do all processes have the same model and images? Start the command again"
                raise InputError(f"{self._path(number)}: {problem}") from error
            if len(arrays["items"]):
                yield arrays.pop("items"), arrays

    def remove(self) -> None:
        """Remove the folder with all parts."""
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def is_started(self) -> bool:
        """Whether a part exists."""
        return len(self.select_pending(self.numbers)) < len(self.numbers)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06}.npz"

    def _write(self, number: int, rows: list[tuple[np.ndarray, Arrays]]) -> None:
        items = np.concatenate([np.zeros(0, np.int64), *(items for items, _ in rows)])
        names = rows[0][1] if rows else ()
        arrays: Any = {name: np.concatenate([arrays[name] for _, arrays in rows]) for name in names}
        with atomic_write(self._path(number)) as temporary, open(temporary, "wb") as file:
            np.savez(file, items=items, **arrays)


def compute_parts(
    shared: SharedFolder | None,
    settings: dict[str, Any],
    *,
    count: int,
    batch_size: int,
    compute: Callable[[np.ndarray], Iterable[tuple[np.ndarray, Arrays]]],
) -> Arrays | None:
    """Compute this process's share of `count` items in parts; return the arrays of all to the first process.

    shared:   the processes and their folder; None computes all items here, in the same batches, and writes nothing.
    settings: all that the arrays depend on, JSON-able. Parts of the same settings, of a process that was killed, are
              not computed again.
    compute:  items -> chunks as Parts.write takes them, with a row for every item.
    Returns None to the other processes. Raises InputError if one of them has failed, or has other settings.
    """
    if shared is None:
        return _concatenate(arrays for _, arrays in compute(np.arange(count)))
    digest = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16]
    parts = Parts.of(shared.parts / digest, count, batch_size)
    parts.folder.mkdir(parents=True, exist_ok=True)
    share = shared.team.share(parts.numbers)
    pending = parts.select_pending(share)
    if len(pending) < len(share):
        note(f"{len(share) - len(pending)} of {len(share)} parts are done already", file=sys.stderr)
    try:
        items = [item for number in pending for item in parts.items(number)]
        parts.write(pending, compute(np.array(items, np.int64)) if items else ())
    finally:
        with suppress(OSError):  # it has parts
            parts.folder.rmdir()
    if not shared.team.is_first:
        return None
    shared.states.wait_for_all()
    return _concatenate(arrays for _, arrays in parts.read())


def _concatenate(chunks: Iterable[Arrays]) -> Arrays:
    """Return the rows of several chunks with the same names."""
    chunks = list(chunks)
    return {name: np.concatenate([arrays[name] for arrays in chunks]) for name in chunks[0]}


def hash_files(files: Iterable[Path]) -> str:
    """Return a hash of the contents of those of the files that exist, in hexadecimal digits."""
    digest = hashlib.sha256()
    for path in files:
        if path.is_file():
            with open(path, "rb") as file:
                digest.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


def hash_listing(files: Iterable[str | Path]) -> str:
    """Return a hash of the names, sizes and times of files, which changes when a file does, in hexadecimal digits.

    Of names that are no files, such as those of records, the names only.
    """
    digest = hashlib.sha256()
    for path in files:
        digest.update(os.fsencode(path))
        with suppress(OSError):
            status = os.stat(path)
            digest.update(f" {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()
