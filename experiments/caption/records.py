"""captions.json, captions.csv and settings.json: records of captioned pictures, written atomically as they grow."""

import csv
import json
import time
from pathlib import Path
from typing import Any

from vit_jax import InputError
from vit_jax.files import atomic_write

CAPTIONS, TABLE, SETTINGS = "captions.json", "captions.csv", "settings.json"
MAX_WRITE_FRACTION = 0.05  # of the time: a file of a million captions takes long to write


class Records:
    """The records of a folder by picture: the existing ones and those added.

    A record has file (as given), caption, log_probability, n_best (a list of the two before, best first), and figure (a
    path below the folder, or None). Raises InputError when existing records can't be read or have other settings.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]):
        self.folder, self.settings = folder, settings
        self.by_file: dict[str, dict[str, Any]] = {}
        self._wait_until = 0.0
        if (folder / CAPTIONS).exists():
            _check_settings(folder, settings)
            self.by_file = _read(folder / CAPTIONS)
        self._figures = {record["figure"]: file for file, record in self.by_file.items() if record.get("figure")}

    def is_done(self, file: str, *, figure: bool) -> bool:
        """Whether a picture has a record, and a figure if it should have one."""
        record = self.by_file.get(file)
        if record is None or not figure:
            return record is not None
        return bool(record.get("figure")) and (self.folder / record["figure"]).is_file()

    def check_free(self, file: str, figure: str) -> None:
        """Raise InputError when the figure's path belongs to another picture."""
        if self._figures.get(figure, file) != file:
            raise InputError(
                f"{self.folder / figure}: is the figure of {self._figures[figure]}, and {file} would replace it; "
                "choose another --out, or give the picture as before"
            )

    def add(self, record: dict[str, Any]) -> None:
        """Add a picture's record, or replace it."""
        self.by_file[record["file"]] = record
        if record["figure"]:
            self._figures[record["figure"]] = record["file"]

    def save(self, *, now: bool = True) -> None:
        """Write each file atomically; now=False skips it if writing took long and was recent."""
        start = time.monotonic()
        if not now and start < self._wait_until:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(self.folder / SETTINGS) as temporary:
            temporary.write_text(json.dumps(self.settings, indent=1) + "\n")
        records = list(self.by_file.values())
        with atomic_write(self.folder / CAPTIONS) as temporary:
            temporary.write_text("[\n" + ",\n".join(json.dumps(record) for record in records) + "\n]\n")
        with (
            atomic_write(self.folder / TABLE) as temporary,
            open(temporary, "w", newline="", encoding="utf-8", errors="surrogateescape") as file,
        ):
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("file", "caption"))
            writer.writerows((record["file"], record["caption"]) for record in records)
        end = time.monotonic()
        self._wait_until = end + (end - start) / MAX_WRITE_FRACTION


def _check_settings(folder: Path, settings: dict[str, Any]) -> None:
    path = folder / SETTINGS
    try:
        existing = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        changed = [name for name in settings if existing.get(name) != settings[name]]
    except (ValueError, AttributeError) as error:
        raise InputError(f"{path}: not readable ({error}); choose another --out") from error
    if not existing:
        raise InputError(f"{folder / CAPTIONS}: not from this command (it has no {SETTINGS}); choose another --out")
    if changed:
        changes = ", ".join(
            name if name in ("weights", "vocabulary") else f"{name} {existing.get(name)}, not {settings[name]}"
            for name in changed
        )
        raise InputError(f"{folder}: its captions have other settings ({changes}); choose another --out")


def _read(path: Path) -> dict[str, dict[str, Any]]:
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
        return {str(record["file"]): record for record in records if isinstance(record["caption"], str)}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not captions from this command ({error}); choose another --out") from error
