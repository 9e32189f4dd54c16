"""captions.json, captions.csv and settings.json: records of captioned pictures, written atomically as they grow."""

import csv
import json
import shutil
import time
from pathlib import Path
from typing import Any

from experiments.common.sources import is_unchanged
from vit_jax import InputError
from vit_jax.background import WHITE
from vit_jax.files import atomic_write

CAPTIONS, TABLE, SETTINGS = "captions.json", "captions.csv", "settings.json"
UNSTATED = {"background": WHITE, "max_value": None}  # settings that older folders do not state, and the values they had
PARTS = ".parts"  # folder of the records and states of several processes, below the output folder
MAX_WRITE_FRACTION = 0.05  # of the time: a file of a million captions takes long to write


class Records:
    """The records of a folder by picture: the existing ones and those added.

    A record has file (as given), caption, log_probability, n_best (a list of the two before, best first), figure (a
    path below the folder, or None), drawing (its options, if there is one), and source (the state of the file: see
    Source).

    part: the index of a process among several. Its own records go into a file of their own; see merge_parts.
    Raises InputError when existing records can't be read or have other settings.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], *, part: int | None = None):
        self.folder, self.settings, self.part = folder, settings, part
        self._added: dict[str, dict[str, Any]] = {}
        self.by_file: dict[str, dict[str, Any]] = {}
        self._wait_until = 0.0
        if (folder / CAPTIONS).exists():
            _check_settings(folder, settings)
            self.by_file = _read(folder / CAPTIONS)
        self._figures = {record["figure"]: file for file, record in self.by_file.items() if record.get("figure")}

    def is_done(self, name: str, file: Path, *, figure: str, drawing: dict[str, Any]) -> bool:
        """Whether a picture has a record of its present content, and, unless `figure` is "", that figure, so drawn."""
        record = self.by_file.get(name)
        if record is None or not is_unchanged(file, record.get("source")):
            return False
        if not figure:
            return True
        is_drawn = record.get("figure") == figure and record.get("drawing") == drawing
        return is_drawn and (self.folder / figure).is_file()

    def check_free(self, file: str, figure: str) -> None:
        """Raise InputError when the figure's path belongs to another picture."""
        if self._figures.get(figure, file) != file:
            raise InputError(
                f"{self.folder / figure}: is the figure of {self._figures[figure]}, and {file} would replace it; "
                "choose another --out, or give the picture as before"
            )

    def add(self, record: dict[str, Any]) -> None:
        """Add a picture's record, or replace it."""
        self.by_file[record["file"]] = self._added[record["file"]] = record
        if record["figure"]:
            self._figures[record["figure"]] = record["file"]

    def save(self, *, now: bool = True) -> None:
        """Write each file atomically; now=False skips it if writing took long and was recent."""
        start = time.monotonic()
        if not now and start < self._wait_until:
            return
        if self.part is None:
            self._write()
        else:
            self._write_part(self.part)
        end = time.monotonic()
        self._wait_until = end + (end - start) / MAX_WRITE_FRACTION

    def _write_part(self, part: int) -> None:
        (self.folder / PARTS).mkdir(parents=True, exist_ok=True)
        stored = {"settings": self.settings, "records": list(self._added.values())}
        with atomic_write(self.folder / PARTS / f"captions-{part:04}.json") as temporary:
            temporary.write_text(json.dumps(stored) + "\n")

    def _write(self) -> None:
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


def merge_parts(folder: Path) -> None:
    """Merge the records of several processes, also of killed ones, into the folder's own.

    Raises InputError if they have other settings than those, or can't be read.
    """
    parts = sorted((folder / PARTS).glob("captions-*.json"))
    for path in parts:
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            records = Records(folder, stored["settings"])
            for record in stored["records"]:
                records.add(record)
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: not captions from this command ({error}); remove it") from error
        records.save()
    shutil.rmtree(folder / PARTS, ignore_errors=True)


def _check_settings(folder: Path, settings: dict[str, Any]) -> None:
    path = folder / SETTINGS
    try:
        existing = UNSTATED | json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
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
