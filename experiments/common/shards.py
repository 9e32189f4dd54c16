"""Work in shards, shared by any number of processes on any number of hosts through a folder of results.

A shard is done when its result exists, and a result appears by an atomic rename. So every shard has exactly one result,
whatever is killed and whoever does a shard twice. Claims only save double work: a process that starts a shard creates
.NAME.claim and touches it while it works; one that has not been touched for `lease` seconds belongs to a dead process.
"""

import json
import os
import random
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from vit_jax import InputError
from vit_jax.data.listing import is_housekeeping

LEASE = 900.0  # seconds
SETTINGS = "settings.json"


class Shards:
    """The shards of these names, with results NAME + suffix in a folder.

    seed: of the order in which this process tries them; processes of other seeds seldom meet.
    now:  the time in seconds, comparable to that of files.
    """

    def __init__(
        self,
        folder: Path,
        names: Sequence[str],
        *,
        suffix: str,
        lease: float = LEASE,
        seed: int | None = None,
        now: Callable[[], float] = time.time,
    ):
        self.folder, self.names, self.suffix, self.lease, self.now = folder, tuple(names), suffix, lease, now
        self._order = random.Random(seed).sample(self.names, len(self.names))

    def result(self, name: str) -> Path:
        """Return the path of a shard's result."""
        return self.folder / f"{name}{self.suffix}"

    def claim_path(self, name: str) -> Path:
        """Return the path of a shard's claim."""
        return self.folder / f".{name}.claim"

    def claims(self) -> Generator[str]:
        """Yield the shards to do, each claimed by this process, until every one is done or claimed by another.

        The caller writes a shard's result before it asks for the next one. A claim is removed when its shard has a
        result, and when the caller stops by an exception or by closing the iterator.
        """
        done = self._list_done()
        for name in self._order:
            if name in done or not self._claim(name):
                continue
            finished = threading.Event()
            threading.Thread(target=self._keep, args=(name, finished), daemon=True).start()
            try:
                yield name
            finally:
                finished.set()
                self.claim_path(name).unlink(missing_ok=True)
            done = self._list_done()

    def _keep(self, name: str, finished: threading.Event) -> None:
        """Touch a claim until its shard is finished, so that other processes leave it alone."""
        while not finished.wait(self.lease / 4):
            self._touch(self.claim_path(name))

    def _touch(self, claim: Path) -> None:
        with suppress(FileNotFoundError):  # removed just now
            os.utime(claim, (self.now(), self.now()))

    def count_done(self) -> int:
        """Return the number of shards that have results."""
        return len(self._list_done())

    def _list_done(self) -> set[str]:
        """Return the shards that have results, by one listing: cheaper than a look at each."""
        existing = set(os.listdir(self.folder))
        return {name for name in self.names if f"{name}{self.suffix}" in existing}

    def _claim(self, name: str) -> bool:
        claim = self.claim_path(name)
        with suppress(FileNotFoundError):  # nobody has it
            if self.now() - claim.stat().st_mtime > self.lease:
                claim.unlink()
        try:
            claim.touch(exist_ok=False)
        except FileExistsError:
            return False
        self._touch(claim)
        if self.result(name).exists():  # another process finished it a moment ago
            claim.unlink(missing_ok=True)
            return False
        return True


def check_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Store the settings that all results in a folder depend on; the first process does, and the others must have them.

    settings: JSON-able. Raises InputError, naming what differs, for other settings, and for a folder with other files.
    """
    path, text = folder / SETTINGS, json.dumps(settings, indent=1) + "\n"
    if not path.exists():
        if any(not name.startswith(".") and name != SETTINGS for name in os.listdir(folder)):
            raise InputError(f"{folder}: holds other files and no {SETTINGS}; give another folder")
        with tempfile.NamedTemporaryFile("w", dir=folder, prefix=".", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.chmod(file.name, 0o644)  # readable by processes of other users
            with suppress(FileExistsError):  # another process was first
                os.link(file.name, path)
    try:
        stored, expected = json.loads(path.read_text(encoding="utf-8")), json.loads(text)
        changed = [name for name in expected if stored.get(name) != expected[name]]
    except (ValueError, AttributeError) as error:
        raise InputError(f"{path}: not readable ({error}); give another folder") from error
    if changed:
        raise InputError(f"{folder}: its results are of another {', '.join(changed)}; give another folder")


def subfolders(folder: Path) -> list[str]:
    """Return the names of the folders in a folder, sorted, without hidden and housekeeping folders and hidden files.

    Raises InputError for none, and for a file.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    names = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_housekeeping(entry.name):
                continue
            if not entry.is_dir():
                raise InputError(f"{entry.path}: a file next to the shards; move it into a subfolder")
            names.append(entry.name)
    if not names:
        raise InputError(f"{folder}: no subfolders; every one would be a shard")
    return sorted(names)
