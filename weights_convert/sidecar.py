"""What lies beside a checkpoint: the config files of Hugging Face, timm and open_clip, for what arrays can't tell.

Heads, activation, eps, dropout, class names and preprocessing. Only plain JSON is read, and only known fields.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vit_jax import InputError, Preprocess

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
    """What the files beside a checkpoint say.

    family: "hf", "timm", "openai", or "" where there are none. settings: fields of ViTConfig. preprocess: fields of
    Preprocess but size. image_size: (height, width) in pixels, if told. source: the files' names.
    """

    family: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    preprocess: Mapping[str, Any] = field(default_factory=dict)
    image_size: tuple[int, int] | None = None
    class_names: tuple[str, ...] = ()
    source: tuple[str, ...] = ()


def read_sidecar(path: str | os.PathLike) -> SidecarConfig:
    """The companion of a checkpoint file or folder. Raises InputError naming a config file that can't be understood."""
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    config, name = _json(folder / "open_clip_config.json"), "open_clip_config.json"
    try:
        if "model_cfg" in config:
            return _open_clip(config)
        config, name = _json(folder / "config.json"), "config.json"
        if "model_type" in config:
            return _huggingface(config, _json(folder / "preprocessor_config.json"))
        if "architecture" in config:
            return _timm(config)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise InputError(f"{folder / name}: not understood ({error}); mend it or move it away") from error
    return SidecarConfig()


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        stored = json.loads(path.read_text())
    except (ValueError, OSError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error}); mend it or move it away") from error
    return stored if isinstance(stored, dict) else {}


def _size(value: Any) -> tuple[int, int] | None:
    """An image size as Hugging Face writes it: a number, [height, width] or a dictionary."""
    if isinstance(value, dict):
        value = [value["height"], value["width"]] if "height" in value else value.get("shortest_edge")
    if value is None:
        return None
    height, width = (value, value) if isinstance(value, int) else value
    return int(height), int(width)


def _huggingface(config: dict[str, Any], processor: dict[str, Any]) -> SidecarConfig:
    vision = config.get("vision_config", config)
    settings: dict[str, Any] = {}
    if "num_attention_heads" in vision:
        settings["num_heads"] = int(vision["num_attention_heads"])
    if "hidden_act" in vision:
        if vision["hidden_act"] not in ACTIVATIONS:
            raise ValueError(f"hidden_act {vision['hidden_act']!r} is none of {', '.join(ACTIVATIONS)}")
        settings["activation"] = ACTIVATIONS[vision["hidden_act"]]
    for ours, theirs in [
        ("norm_eps", ("layer_norm_eps",)),
        ("dropout", ("hidden_dropout_prob",)),
        ("attention_dropout", ("attention_probs_dropout_prob", "attention_dropout")),
    ]:
        found = next((vision[name] for name in theirs if name in vision), None)
        if found is not None:
            settings[ours] = float(found)
    labels = config.get("id2label") or {}
    names = tuple(str(labels[key]) for key in sorted(labels, key=int))
    source = ("config.json", "preprocessor_config.json") if processor else ("config.json",)
    return SidecarConfig("hf", settings, _processor(processor), _size(vision.get("image_size")), names, source)


def _processor(processor: dict[str, Any]) -> dict[str, Any]:
    """Preprocess's fields as an image processor's file has them."""
    fields: dict[str, Any] = {}
    if processor.get("do_normalize", True):
        for ours, theirs in (("mean", "image_mean"), ("std", "image_std")):
            if theirs in processor:
                fields[ours] = tuple(float(value) for value in processor[theirs])
    if "resample" in processor:
        fields["kernel"] = PIL_KERNELS[processor["resample"]]
    size = processor.get("size")
    crop = _size(processor.get("crop_size")) if processor.get("do_center_crop") else None
    if crop is not None and size is not None:
        resized = _size(size)
        fields["crop"] = min(1.0, crop[0] / resized[0]) if resized else None
    return fields


def _timm(config: dict[str, Any]) -> SidecarConfig:
    settings: dict[str, Any] = {}
    if "quickgelu" in str(config["architecture"]):
        settings["activation"] = "quick_gelu"
    pretrained = config.get("pretrained_cfg") or {}
    fields: dict[str, Any] = {
        name: tuple(float(value) for value in pretrained[name]) for name in ("mean", "std") if name in pretrained
    }
    if "interpolation" in pretrained:
        fields["kernel"] = str(pretrained["interpolation"])
    if "crop_pct" in pretrained and pretrained.get("crop_mode", "center") == "center":
        fields["crop"] = min(1.0, float(pretrained["crop_pct"]))
    size = pretrained.get("input_size")
    names = tuple(str(name) for name in config.get("label_names") or ())
    return SidecarConfig(
        "timm", settings, fields, (int(size[1]), int(size[2])) if size else None, names, ("config.json",)
    )


def _open_clip(config: dict[str, Any]) -> SidecarConfig:
    model = config["model_cfg"]
    fields: dict[str, Any] = {}
    vision = model["vision_cfg"]
    settings: dict[str, Any] = {"activation": "quick_gelu" if model.get("quick_gelu") else "gelu"}
    if "head_width" in vision:
        settings["num_heads"] = int(vision["width"]) // int(vision["head_width"])
    preprocess = config.get("preprocess_cfg") or {}
    for name in ("mean", "std"):
        if name in preprocess:
            fields[name] = tuple(float(value) for value in preprocess[name])
    if "interpolation" in preprocess:
        fields["kernel"] = str(preprocess["interpolation"])
    size = _size(vision.get("image_size"))
    return SidecarConfig("openai", settings, fields, size, (), ("open_clip_config.json",))


def preprocess_with(companion: SidecarConfig, image_size: tuple[int, int]) -> Preprocess | None:
    """The preprocessing that a companion tells, at the model's size; None where it tells none."""
    return Preprocess(image_size, **companion.preprocess) if companion.preprocess else None
