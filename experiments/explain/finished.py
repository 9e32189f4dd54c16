"""Which images are explained already: with the same model and options, and with their present content."""

import hashlib
import json
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from experiments.common.pictures import ImagePath
from experiments.common.sources import Source, is_unchanged
from experiments.explain.explainer import Explainer
from vit_jax.checkpoint import hash_weights
from vit_jax.plot import MapFigureOptions

FORMAT = 2  # of the results; another number makes all of them anew


def hash_settings(explainer: Explainer, figures: MapFigureOptions) -> str:
    """Return a hash of all that an image's results depend on except the image, in hexadecimal digits."""
    settings = {
        "format": FORMAT,
        "weights": hash_weights(explainer.model),
        "config": asdict(explainer.model.config),
        "class_names": explainer.card.class_names,
        "methods": explainer.methods + explainer.head_methods,
        "options": asdict(explainer.options),
        "targets": explainer.targets,
        "all": (explainer.all_heads, explainer.all_layers),
        "figures": asdict(figures),
    }
    return hashlib.sha256(json.dumps(settings).encode()).hexdigest()


def stored_state(settings: str, source: Source) -> dict[str, Any]:
    """Return the arrays by which is_finished recognizes an image's results."""
    return {"settings": np.array(settings), "source": np.array(json.dumps(source))}


def is_finished(image: ImagePath, out: Path, ends: list[str], settings: str) -> bool:
    """Return whether an image has all its results, with names of these ends, of these settings and its content."""
    base = out / image.result
    if not all(Path(f"{base}{end}").is_file() for end in ends):
        return False
    try:
        with np.load(f"{base}.npz") as stored:
            if stored["settings"].item() != settings:
                return False
            source = json.loads(stored["source"].item())
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return False
    return is_unchanged(image.file, source)
