"""The file of numbers that an evaluation writes into --out."""

import json
from pathlib import Path
from typing import Any

from vit_jax.files import atomic_write

RESULT = "evaluation.json"


def write_result(folder: Path, result: dict[str, Any]) -> None:
    """Write the numbers to evaluation.json, atomically, in a folder that is created if necessary."""
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / RESULT) as path:
        path.write_text(json.dumps(result) + "\n")
