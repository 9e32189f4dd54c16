"""The folder of a saved model: itself, or best/ of a run."""

import os
from pathlib import Path

from vit_jax.errors import InputError

BEST, METRICS, CONFIG = "best", "metrics.jsonl", "config.json"


def find_saved_folder(path: str | os.PathLike) -> Path:
    """Return best/ of a run's folder; any other path as it is. Raises InputError for a run that has no best/ yet."""
    folder = Path(path)
    if (folder / BEST / CONFIG).is_file():
        return folder / BEST
    if (folder / METRICS).is_file():
        raise InputError(f"{folder}: a run that has no {BEST}/ yet; let it finish an epoch")
    return folder
