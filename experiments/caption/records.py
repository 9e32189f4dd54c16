"""captions.json, captions.csv and settings.json: what was captioned, kept whole on disk while more is added."""

import csv
import json
import time
from pathlib import Path
from typing import Any

from vit_jax import InputError
from vit_jax.files import atomic_write

CAPTIONS, TABLE, SETTINGS = "captions.json", "captions.csv", "settings.json"
SHARE = 0.05  # of the time goes into writing, at most: a file of a million captions takes long


class Records:
    """The records of a folder, by picture: those there already, and those added.

    A record: file (as it was given), caption, log_probability, n_best (a list of these two, best first), and figure
    (a path below the folder, or None). Raises InputError when the folder's records can't be read or were made with
    other settings.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]):
        self.folder, self.settings = folder, settings
        self.by_file: dict[str, dict[str, Any]] = {}
        self._wait_until = 0.0
        if (folder / CAPTIONS).exists():
            _check_settings(folder, settings)
            self.by_file = _read(folder / CAPTIONS)
        self._figures = {record["figure"]: file for file, record in self.by_file.items() if record.get("figure")}

    def done(self, file: str, *, figure: bool) -> bool:
        """Whether a picture has its record, and the figure, if it should have one."""
        record = self.by_file.get(file)
        if record is None or not figure:
            return record is not None
        return bool(record.get("figure")) and (self.folder / record["figure"]).is_file()

    def check_free(self, file: str, figure: str) -> None:
        """Raise InputError when a figure's name is another picture's."""
        if self._figures.get(figure, file) != file:
            raise InputError(
                f"{self.folder / figure}: is the figure of {self._figures[figure]}, and {file} would replace it; "
                "choose another --out, or give the picture as before"
            )

    def add(self, record: dict[str, Any]) -> None:
        """A picture's record, in place of the one it had."""
        self.by_file[record["file"]] = record
        if record["figure"]:
            self._figures[record["figure"]] = record["file"]

    def save(self, *, now: bool = True) -> None:
        """Write the files, each whole or not at all; now=False leaves it for later where writing takes long."""
        began = time.monotonic()
        if not now and began < self._wait_until:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(self.folder / SETTINGS) as beside:
            beside.write_text(json.dumps(self.settings, indent=1) + "\n")
        records = list(self.by_file.values())
        with atomic_write(self.folder / CAPTIONS) as beside:
            beside.write_text("[\n" + ",\n".join(json.dumps(record) for record in records) + "\n]\n")
        with (
            atomic_write(self.folder / TABLE) as beside,
            open(beside, "w", newline="", encoding="utf-8", errors="surrogateescape") as file,
        ):
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("file", "caption"))
            writer.writerows((record["file"], record["caption"]) for record in records)
        ended = time.monotonic()
        self._wait_until = ended + (ended - began) / SHARE


def _check_settings(folder: Path, settings: dict[str, Any]) -> None:
    path = folder / SETTINGS
    try:
        before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        differing = [name for name in settings if before.get(name) != settings[name]]
    except (ValueError, AttributeError) as error:
        raise InputError(f"{path}: not readable ({error}); choose another --out") from error
    if not before:
        raise InputError(f"{folder / CAPTIONS}: not of this command (no {SETTINGS} beside it); choose another --out")
    if differing:
        what = ", ".join(
            name if name in ("weights", "vocabulary") else f"{name} {before.get(name)}, not {settings[name]}"
            for name in differing
        )
        raise InputError(f"{folder}: its captions were made with other settings ({what}); choose another --out")


def _read(path: Path) -> dict[str, dict[str, Any]]:
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
        return {str(record["file"]): record for record in records if isinstance(record["caption"], str)}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not captions of this command ({error}); choose another --out") from error
