"""Names of Hugging Face data sets in --data: hf:NAME[:CONFIG][,image=COLUMN][,label=COLUMN], or hf:./FOLDER."""

import re
from pathlib import Path
from typing import NamedTuple

from vit_jax.errors import InputError

PREFIX = "hf:"
FORM = "hf:NAME[:CONFIG][,image=COLUMN][,label=COLUMN]"
REPOSITORY = re.compile(r"[\w.-]+(?:/[\w.-]+)?")
LOCAL = ("/", "./", "../")


class HubName(NamedTuple):
    """What to load. source: a repository, or the path of a folder; image, label: columns, None to choose."""

    source: str
    config: str | None = None
    image: str | None = None
    label: str | None = None


def parse_name(spec: str) -> HubName:
    """Parse what --data names: an "hf:" name, or the path of a folder.

    Raises InputError for a malformed name, and for one that is a folder here too.
    """
    if not spec.startswith(PREFIX):
        return HubName(spec)
    source, columns = _split_columns(spec)
    if source.startswith(LOCAL):
        if not Path(source).is_dir():
            raise InputError(f"{spec}: no such folder")
        return HubName(source, None, **columns)
    name, _, config = source.partition(":")
    if not REPOSITORY.fullmatch(name):
        raise InputError(f"{spec}: not the name of a data set; give {FORM}, or hf:./FOLDER of parquet files")
    if Path(name).exists():
        raise InputError(f"{spec}: {name} is a folder here too; give hf:./{name} for it, or start elsewhere")
    return HubName(name, config or None, **columns)


def absolute_name(spec: str) -> str:
    """Return an "hf:" name of a folder with its absolute path, and any other name as it is."""
    source = spec.removeprefix(PREFIX)
    if not spec.startswith(PREFIX) or not source.startswith(LOCAL):
        return spec
    folder, comma, columns = source.partition(",")
    return f"{PREFIX}{Path(folder).absolute()}{comma}{columns}"


def _split_columns(spec: str) -> tuple[str, dict[str, str]]:
    source, *parts = spec.removeprefix(PREFIX).split(",")
    columns = {}
    for part in parts:
        key, equals, value = part.partition("=")
        if key not in ("image", "label") or not equals or not value or key in columns:
            raise InputError(f"{spec}: {part!r} names no column; give {FORM}")
        columns[key] = value
    return source, columns
