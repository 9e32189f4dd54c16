"""JSON files that hold one object: configs, plans and records of runs."""

import json
from pathlib import Path
from typing import Any

from vit_jax.errors import InputError


def read_json_object(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file. Raises InputError, with the file and the line, unless it is one."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error}); restore the file, or write it again") from error
    if not isinstance(stored, dict):
        raise InputError(f"{path}: not a JSON object; restore the file, or write it again")
    return stored


def describe_malformed(error: Exception) -> str:
    """Return what is wrong in a JSON object, from the error of reading its fields."""
    return f"it has no {error}" if isinstance(error, KeyError) else str(error)
