"""Sidecar configs: the JSON files that Hugging Face, timm and open_clip store next to a checkpoint.

They hold what arrays cannot: number of heads, activation, eps, dropout, class names and preprocessing. Only plain JSON
and known fields are read.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vit_jax import InputError

ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
}
PIL_KERNELS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}


@dataclass(frozen=True)
class SidecarConfig:
    """The settings that a checkpoint's sidecar files hold; empty if there are none.

    family:            "hf", "timm", "openai" or "".
    config_fields:     fields of ViTConfig.
    preprocess_fields: fields of Preprocess.
    image_size:        (height, width) in pixels, or None.
    class_names:       in the order of the logits, or ().
    files:             the names of the files read.
    """

    family: str = ""
    config_fields: Mapping[str, Any] = field(default_factory=dict)
    preprocess_fields: Mapping[str, Any] = field(default_factory=dict)
    image_size: tuple[int, int] | None = None
    class_names: tuple[str, ...] = ()
    files: tuple[str, ...] = ()


def read_sidecar(path: str | os.PathLike) -> SidecarConfig:
    """Read the sidecar config of a checkpoint file or folder. Raises InputError naming a file that is malformed."""
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    config, name = _read_json(folder / "open_clip_config.json"), "open_clip_config.json"
    try:
        if "model_cfg" in config:
            return _parse_open_clip(config)
        config, name = _read_json(folder / "config.json"), "config.json"
        if "model_type" in config:
            return _parse_huggingface(config, _read_json(folder / "preprocessor_config.json"))
        if "architecture" in config:
            return _parse_timm(config)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise InputError(f"{folder / name}: not understood ({error}); fix it or move it away") from error
    return SidecarConfig()


def _read_json(path: Path) -> dict[str, Any]:
    """Return the file's JSON object; {} if there is no file or its JSON is no object."""
    if not path.is_file():
        return {}
    try:
        stored = json.loads(path.read_text())
    except (ValueError, OSError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error}); fix it or move it away") from error
    return stored if isinstance(stored, dict) else {}


def _parse_size(value: Any) -> tuple[int, int] | None:
    """Parse an image size as Hugging Face writes it: a number, [height, width] or a dictionary."""
    if isinstance(value, dict):
        value = [value["height"], value["width"]] if "height" in value else value.get("shortest_edge")
    if value is None:
        return None
    height, width = (value, value) if isinstance(value, int) else value
    return int(height), int(width)


def _parse_floats(values: Any) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _parse_huggingface(config: dict[str, Any], processor: dict[str, Any]) -> SidecarConfig:
    vision = config.get("vision_config", config)
    fields: dict[str, Any] = {}
    if "num_attention_heads" in vision:
        fields["num_heads"] = int(vision["num_attention_heads"])
    if "hidden_act" in vision:
        if vision["hidden_act"] not in ACTIVATIONS:
            raise ValueError(f"unknown hidden_act {vision['hidden_act']!r}: one of {', '.join(ACTIVATIONS)}")
        fields["activation"] = ACTIVATIONS[vision["hidden_act"]]
    for field_name, keys in [
        ("norm_eps", ("layer_norm_eps",)),
        ("dropout", ("hidden_dropout_prob",)),
        ("attention_dropout", ("attention_probs_dropout_prob", "attention_dropout")),
    ]:
        value = next((vision[key] for key in keys if key in vision), None)
        if value is not None:
            fields[field_name] = float(value)
    labels = config.get("id2label") or {}
    class_names = tuple(str(labels[key]) for key in sorted(labels, key=int))
    files = ("config.json", "preprocessor_config.json") if processor else ("config.json",)
    return SidecarConfig(
        "hf", fields, _parse_processor(processor), _parse_size(vision.get("image_size")), class_names, files
    )


def _parse_processor(processor: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of Preprocess in Hugging Face's preprocessor_config.json."""
    fields: dict[str, Any] = {}
    if processor.get("do_normalize", True):
        for field_name, key in (("mean", "image_mean"), ("std", "image_std")):
            if key in processor:
                fields[field_name] = _parse_floats(processor[key])
    if "resample" in processor:
        fields["kernel"] = PIL_KERNELS[processor["resample"]]
    size = processor.get("size")
    crop = _parse_size(processor.get("crop_size")) if processor.get("do_center_crop") else None
    if crop is not None and size is not None:
        resized = _parse_size(size)
        fields["crop"] = min(1.0, crop[0] / resized[0]) if resized else None
    return fields


def _parse_timm(config: dict[str, Any]) -> SidecarConfig:
    fields = {"activation": "quick_gelu"} if "quickgelu" in str(config["architecture"]) else {}
    pretrained = config.get("pretrained_cfg") or {}
    preprocess: dict[str, Any] = {key: _parse_floats(pretrained[key]) for key in ("mean", "std") if key in pretrained}
    if "interpolation" in pretrained:
        preprocess["kernel"] = str(pretrained["interpolation"])
    if "crop_pct" in pretrained and pretrained.get("crop_mode", "center") == "center":
        preprocess["crop"] = min(1.0, float(pretrained["crop_pct"]))
    size = pretrained.get("input_size")
    image_size = (int(size[1]), int(size[2])) if size else None
    class_names = tuple(str(name) for name in config.get("label_names") or ())
    return SidecarConfig("timm", fields, preprocess, image_size, class_names, ("config.json",))


def _parse_open_clip(config: dict[str, Any]) -> SidecarConfig:
    model = config["model_cfg"]
    vision = model["vision_cfg"]
    fields: dict[str, Any] = {"activation": "quick_gelu" if model.get("quick_gelu") else "gelu"}
    if "head_width" in vision:
        fields["num_heads"] = int(vision["width"]) // int(vision["head_width"])
    stored = config.get("preprocess_cfg") or {}
    preprocess: dict[str, Any] = {key: _parse_floats(stored[key]) for key in ("mean", "std") if key in stored}
    if "interpolation" in stored:
        preprocess["kernel"] = str(stored["interpolation"])
    image_size = _parse_size(vision.get("image_size"))
    return SidecarConfig("openai", fields, preprocess, image_size, (), ("open_clip_config.json",))
