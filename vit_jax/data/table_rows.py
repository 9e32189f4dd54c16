"""The rows of a table of labels (.csv, .tsv, .jsonl): a file, its labels, and its split if there is such a column."""

import contextlib
import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vit_jax.data.unicode_names import compose_name
from vit_jax.errors import InputError

SUFFIXES = (".csv", ".tsv", ".jsonl")
COLUMNS = {  # accepted names, in any case
    "file": ("file", "filename", "file_name", "path", "filepath", "image", "image_path"),
    "label": ("label", "labels", "class", "classes", "class_name"),
    "split": ("split",),
}
SEPARATOR = "|"


class LabelRow(NamedTuple):
    """A row of a table. line: its number in the file, from 1; labels: names in NFC; split: "" without such a column."""

    line: int
    file: str
    labels: tuple[str, ...]
    split: str


class _Columns(NamedTuple):
    """The names of the columns that are used. split: None if there is none."""

    file: str
    label: str
    split: str | None


def is_table(path: str | Path) -> bool:
    """Return whether a path names a table, by its suffix."""
    return str(path).lower().endswith(SUFFIXES)


def read_rows(path: Path) -> list[LabelRow]:
    """Read the rows of a table. Prints a line that names the columns it does not use.

    Raises InputError, naming the line, for a file that is no table, a header without a file and a label column, two
    columns for one of them, and a row without a file or with a label that is neither text nor a number.
    """
    try:
        lines = list(_read_jsonl(path) if path.suffix.lower() == ".jsonl" else _read_csv(path))
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from error
    except csv.Error as error:
        raise InputError(f"{path}: not a table: {error}") from error
    if not lines:
        raise InputError(f"{path}: no rows in it; give a header and a line for each image")
    columns = _find_columns(path, dict.fromkeys(name for _, row in lines for name in row))
    return [_parse_row(path, line, row, columns) for line, row in lines]


def _read_csv(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        header = next(reader, [])
        repeated = next((name for name in header if header.count(name) > 1), None)
        if repeated is not None:
            raise InputError(f"{path}: two columns are named {repeated!r}; rename one")
        for cells in reader:
            if len(cells) not in (0, len(header)):
                raise InputError(f"{path}, line {reader.line_num}: {len(cells)} values for {len(header)} columns")
            if cells:
                yield reader.line_num, dict(zip(header, cells, strict=True))


def _read_jsonl(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with open(path, encoding="utf-8-sig") as file:
        for number, text in enumerate(file, 1):
            if not text.strip():
                continue
            try:
                row = json.loads(text)
            except ValueError as error:
                raise InputError(f"{path}, line {number}: not JSON: {error}") from error
            if not isinstance(row, dict):
                raise InputError(f"{path}, line {number}: not a JSON object with a file and a label")
            yield number, row


def _find_columns(path: Path, names: Mapping[str, None]) -> _Columns:
    found = {}
    for kind, accepted in COLUMNS.items():
        matches = [name for name in names if name.strip().lower() in accepted]
        if len(matches) > 1:
            raise InputError(f"{path}: {' and '.join(matches)} could both be the {kind} column; rename one")
        if not matches and kind != "split":
            raise InputError(
                f"{path}: no {kind} column in its header; name it {' or '.join(accepted[:2])} "
                f"(it has {', '.join(map(repr, list(names)[:8]))})"
            )
        found[kind] = matches[0] if matches else None
    unused = [name for name in names if name not in found.values()]
    if unused:
        print(f"{path}: columns not used: {', '.join(unused)}")
    assert found["file"] is not None
    assert found["label"] is not None
    return _Columns(found["file"], found["label"], found["split"])


def _parse_row(path: Path, line: int, row: Mapping[str, Any], columns: _Columns) -> LabelRow:
    file, split = row.get(columns.file), row.get(columns.split, "") if columns.split else ""
    if not isinstance(file, str) or not file.strip():
        raise InputError(f"{path}, line {line}: no file in column {columns.file}")
    if not isinstance(split, str) or (columns.split and not split.strip()):
        raise InputError(f"{path}, line {line}: no split in column {columns.split}; give train or val")
    try:
        labels = _parse_labels(row.get(columns.label))
    except ValueError as error:
        raise InputError(f"{path}, line {line}: column {columns.label}: {error}") from error
    return LabelRow(line, file.strip(), labels, split.strip())


def format_labels(labels: Sequence[str]) -> str:
    """Return the cell of a table that holds these labels, with | between them; as a JSON list where that is unclear."""
    is_plain = not any(SEPARATOR in label or label.lstrip().startswith("[") for label in labels)
    return SEPARATOR.join(labels) if is_plain else json.dumps(list(labels), ensure_ascii=False)


def _parse_labels(value: Any) -> tuple[str, ...]:
    """Return the labels in a cell: a name or number, several names with | between them, or a JSON list of names."""
    if isinstance(value, str) and value.strip().startswith("["):
        with contextlib.suppress(ValueError):  # a name that begins with a bracket
            value = json.loads(value)
    values: Sequence[Any] = value.split(SEPARATOR) if isinstance(value, str) else value
    if value is None:
        values = []
    elif not isinstance(value, str | list):
        values = [value]
    if not all(isinstance(item, str | int) and not isinstance(item, bool) for item in values):
        raise ValueError(f"{value!r} is not a label, nor a list of labels")
    names = [compose_name(str(item).strip()) for item in values]
    return tuple(dict.fromkeys(name for name in names if name))
