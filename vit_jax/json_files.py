"""JSON files that hold one object: configs, plans and records of runs, and their data in compressed form."""

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

from vit_jax.errors import InputError
from vit_jax.files import atomic_write


def read_json_object(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file. Raises InputError, with the file and the line, unless it is one."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error}); restore the file, or write it again") from error
    if not isinstance(stored, dict):
        raise InputError(f"{path}: not a JSON object; restore the file, or write it again")
    return stored


def write_compressed_json(path: Path, format: str, content: dict[str, Any]) -> None:
    """Write an object of a format as compressed JSON, atomically."""
    text = json.dumps({"format": format} | content, separators=(",", ":"))
    with atomic_write(path) as temporary:
        temporary.write_bytes(gzip.compress(text.encode(), compresslevel=5, mtime=0))


def read_compressed_json(path: Path, format: str) -> dict[str, Any]:
    """Read what write_compressed_json wrote. Raises InputError naming a file that is damaged or of another format."""
    try:
        stored = json.loads(gzip.decompress(path.read_bytes()))
        if stored["format"] != format:
            raise ValueError(f"format is not {format}")
    except (gzip.BadGzipFile, zlib.error, EOFError, ValueError, KeyError, TypeError) as error:
        problem = describe_malformed(error)
        raise InputError(f"{path}: damaged ({problem}); restore the file, or start a new run") from error
    return stored


def describe_malformed(error: Exception) -> str:
    """Return what is wrong in a JSON object, from the error of reading its fields."""
    return f"it has no {error}" if isinstance(error, KeyError) else str(error)
