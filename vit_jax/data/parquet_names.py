"""The class names that each parquet file of a data set states, compared with those that are used for all of them.

`datasets` reads the labels of all files, which are numbers, by the names of the first one.
"""

import json
from collections.abc import Iterable
from typing import Any

from vit_jax.errors import InputError


def check_class_names(spec: str, files: Iterable[str], column: str, names: tuple[str, ...] | None) -> None:
    """Raise InputError for a file that numbers the classes of a column in another way than `names`, as stored.

    A file may state no names, or the first of them only.
    """
    for file in files:
        stated = _read_names(file, column)
        if stated is None or (names is not None and stated == names[: len(stated)]):
            continue
        used = list(names or ())
        first = next(i for i, name in enumerate(stated) if used[i : i + 1] != [name])
        other = f"{used[first]!r}" if first < len(used) else "no class" if used else "a text"
        raise InputError(
            f"{spec}: {column} {first} is {stated[first]!r} in {file}, and {other} in the first file, whose names are "
            "used for all; write the files with one list of names"
        )


def _read_names(file: str, column: str) -> tuple[str, ...] | None:
    """Return the class names in the metadata that `datasets` writes, None without any."""
    import pyarrow.parquet as pq  # installed with `datasets`

    metadata = pq.read_schema(file).metadata or {}
    try:
        feature: Any = json.loads(metadata[b"huggingface"])["info"]["features"][column]
        names = feature.get("feature", feature).get("names")
    except (KeyError, ValueError, AttributeError, TypeError):
        return None
    return None if names is None else tuple(names)
