"""Results of numbered items in parts, files of arrays that appear one by one, so that work can stop at any moment."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vit_jax import InputError
from vit_jax.files import atomic_write
from vit_jax.locks import LOCK

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
        """Return the parts of `count` items, of about a batch or more."""
        return cls(folder, count, max(batch_size, min(MAX_PART, -(-count // PARTS))))

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
                raise InputError(f"{self._path(number)}: missing; start the command again") from error
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


def hash_files(files: Iterable[Path]) -> str:
    """Return a hash of the contents of those of the files that exist, in hexadecimal digits."""
    digest = hashlib.sha256()
    for path in files:
        if path.is_file():
            with open(path, "rb") as file:
                digest.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


def hash_listing(files: Iterable[Path]) -> str:
    """Return a hash of the names, sizes and times of files, which changes when a file does, in hexadecimal digits."""
    digest = hashlib.sha256()
    for path in files:
        status = path.stat()
        digest.update(os.fsencode(path) + f" {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()
