"""Find and read the sidecar files of a checkpoint."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from vit_jax import InputError
from vit_jax.preprocess import Preprocess
from weights_convert.sidecar.config import SidecarConfig
from weights_convert.sidecar.huggingface import parse_huggingface, resolve_vision_settings
from weights_convert.sidecar.huggingface_processor import parse_processor
from weights_convert.sidecar.open_clip import parse_open_clip
from weights_convert.sidecar.timm import parse_timm

OPEN_CLIP = "open_clip_config.json"
CONFIG = "config.json"
PROCESSOR = "preprocessor_config.json"
NESTED_PROCESSOR = "processor_config.json"  # transformers 5 saves the processors of a CLIP or SigLIP there


def read_sidecar(path: str | os.PathLike) -> SidecarConfig:
    """Read the sidecar config of a checkpoint file or folder.

    Raises InputError naming the file for one that is malformed, for a model or a setting that is not supported, and
    for fields whose effect is not known.
    """
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    configs = [config for read in (_read_open_clip, _read_config) if (config := read(folder)) is not None]
    if not configs:
        _check_lone_processor(folder)
        return SidecarConfig()
    return replace(configs[0], alternative=configs[1]) if configs[1:] else configs[0]


def _read_open_clip(folder: Path) -> SidecarConfig | None:
    if not (folder / OPEN_CLIP).is_file():
        return None
    stored = _read_json(folder / OPEN_CLIP)
    with _name_in_errors(folder / OPEN_CLIP):
        config = parse_open_clip(stored)
        Preprocess(**config.preprocess_fields)
        return config


def _read_config(folder: Path) -> SidecarConfig | None:
    """Read config.json, timm's or Hugging Face's, and Hugging Face's image processor."""
    stored = _read_json(folder / CONFIG)
    with _name_in_errors(folder / CONFIG):
        model_type = stored.get("model_type")
        if model_type == "timm_wrapper" or (model_type is None and "architecture" in stored):
            config = parse_timm(stored)
            Preprocess(**config.preprocess_fields)
            return config
        if model_type is None:
            return None
        config, vision = parse_huggingface(stored), resolve_vision_settings(stored)
    source, processor = _read_processor(folder)
    if not processor:
        return config
    with _name_in_errors(source):
        fields, notes = parse_processor(processor, vision)
        Preprocess(**fields)
    notes = tuple(f"{source.name}: {note}" for note in notes)
    return replace(config, preprocess_fields=fields, files=(CONFIG, source.name), notes=(*config.notes, *notes))


def _read_processor(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Return the settings of the image processor and their file. As in transformers, a nested processor comes first."""
    nested = _read_json(folder / NESTED_PROCESSOR).get("image_processor")
    if isinstance(nested, dict):
        return folder / NESTED_PROCESSOR, nested
    return folder / PROCESSOR, _read_json(folder / PROCESSOR)


def _check_lone_processor(folder: Path) -> None:
    """Raise InputError for an image processor without the config.json that says of which model it is."""
    if (folder / PROCESSOR).is_file() and not (folder / CONFIG).is_file():
        raise InputError(f"{folder / PROCESSOR}: it needs the {CONFIG} that belongs to it; add that or move it away")


def _read_json(path: Path) -> dict[str, Any]:
    """Return the file's JSON object; {} if there is no file."""
    if not path.is_file():
        return {}
    try:
        stored = json.loads(path.read_text(), parse_constant=_reject_constant)
    except (ValueError, OSError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error}); fix it or move it away") from error
    if not isinstance(stored, dict):
        raise InputError(f"{path}: not a JSON object; fix it or move it away")
    return stored


def _reject_constant(name: str) -> None:
    raise ValueError(f"it has {name}")


@contextmanager
def _name_in_errors(path: Path) -> Iterator[None]:
    """Raise errors about a file's contents as InputError with the file's name."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except KeyError as error:
        raise InputError(f"{path}: not understood (it has no {error}); fix it or move it away") from error
    except (TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise InputError(f"{path}: not understood ({error}); fix it or move it away") from error
