"""LoRA adapters of Hugging Face's PEFT: adapter_model.safetensors and adapter_config.json.

An adapted layer computes W x + scale * B (A x) with scale = alpha / r (https://arxiv.org/abs/2106.09685), or
alpha / sqrt(r) with use_rslora (https://arxiv.org/abs/2312.03732). Merging adds scale * B A to W. Whole modules of
modules_to_save (a new head) and trained biases replace those of the base.
"""

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vit_jax import InputError

PREFIX = "base_model.model."
# Fields of adapter_config.json that do not change what a merged model computes, or that merge_lora applies.
KNOWN_FIELDS = (
    *("peft_type", "task_type", "base_model_name_or_path", "revision", "inference_mode", "auto_mapping"),
    *("peft_version", "r", "lora_alpha", "lora_dropout", "target_modules", "exclude_modules", "modules_to_save"),
    *("fan_in_fan_out", "bias", "use_rslora", "alpha_pattern", "rank_pattern", "init_lora_weights", "eva_config"),
    *("layers_to_transform", "layers_pattern", "megatron_core", "qalora_group_size", "runtime_config"),
    "ephemeral_gpu_offload",
)
# Of init_lora_weights. The others (PiSSA, OLoRA, ...) change the base's weights too, which the adapter does not hold.
KEEP_BASE = (None, True, False, "gaussian", "eva", "orthogonal")
LORA_NAME = re.compile(r"(?P<module>.+)\.lora_(?P<kind>[AB])(?:\.[^.]+)??\.weight")

CONFIG, WEIGHTS = "adapter_config.json", ("adapter_model.safetensors", "adapter_model.bin")

Arrays = Mapping[str, np.ndarray]


def find_adapter(path: str | os.PathLike) -> tuple[Path, dict[str, Any]]:
    """Return the weights file of an adapter, given it or its folder, and the config next to it.

    Raises InputError, naming the file, if either is missing or the config is no JSON object.
    """
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    files = [folder / name for name in WEIGHTS if (folder / name).is_file()] if Path(path).is_dir() else [Path(path)]
    if not files:
        raise InputError(f"{path}: no LoRA adapter; it has no {' or '.join(WEIGHTS)}")
    try:
        config = json.loads((folder / CONFIG).read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{folder / CONFIG}: not readable as JSON ({error})") from error
    if not isinstance(config, dict):
        raise InputError(f"{folder / CONFIG}: not a JSON object")
    return files[0], config


def merge_lora(base: Arrays, adapter: Arrays, config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the base model's arrays with a LoRA adapter merged, in the base's names and shapes.

    base:    {name: array} of a dense layer [out, in], or [in, out] with the config's fan_in_fan_out, or a convolution.
    adapter: {name: array}, as "base_model.model.NAME.lora_A.weight".
    config:  adapter_config.json.

    Names may have more or fewer leading components than the base's. Values are float64 if the base's are, else float32.
    Raises InputError for adapters that are no plain LoRA, naming the variant, and for arrays that fit no array of the
    base.
    """
    _check_config(config)
    merged = dict(base)
    factors: dict[str, dict[str, np.ndarray]] = {}
    for name, array in adapter.items():
        if match := LORA_NAME.fullmatch(name):
            factors.setdefault(match["module"].removeprefix(PREFIX), {})[match["kind"]] = np.asarray(array)
        else:
            saved = _saved_name(name, config)
            merged[_find(saved, base) or saved] = np.asarray(array)
    if not factors:
        raise InputError("the adapter holds no LoRA arrays (NAME.lora_A.weight)")
    for module, pair in factors.items():
        target = _find(module + ".weight", base)
        if target is None:
            raise InputError(f"the adapter changes {module}.weight, which the base model does not have")
        if set(pair) != {"A", "B"}:
            raise InputError(f"the adapter has only one of lora_A and lora_B for {module}")
        delta = _scale(module, len(pair["A"]), config) * _multiply(
            pair["A"], pair["B"], bool(config.get("fan_in_fan_out"))
        )
        merged[target] = _add(target, np.asarray(base[target]), delta)
    return merged


def _check_config(config: Mapping[str, Any]) -> None:
    kind = config.get("peft_type")
    if kind != "LORA":
        raise InputError(f"a PEFT adapter of type {kind}; only LORA can be merged")
    variants = sorted(name for name, value in config.items() if value and name not in KNOWN_FIELDS)
    if variants:
        raise InputError(f"a LoRA adapter with {', '.join(variants)}, which is not supported; merge it with PEFT first")
    if config.get("init_lora_weights") not in KEEP_BASE:
        raise InputError(
            f"a LoRA adapter with init_lora_weights {config['init_lora_weights']!r}, which changes the base's weights; "
            "merge it with PEFT first"
        )


def _saved_name(name: str, config: Mapping[str, Any]) -> str:
    """Return the base's name of a whole array. Raises InputError unless the config says that the adapter has it."""
    saved = re.sub(r"\.modules_to_save(\.[^.]+)?(?=\.)", "", name.removeprefix(PREFIX)).replace(".base_layer.", ".")
    modules: Sequence[str] = config.get("modules_to_save") or ()
    is_bias = saved.endswith(".bias") and config.get("bias", "none") != "none"
    if is_bias or any(f".{module}." in f".{saved}" for module in modules):
        return saved
    raise InputError(f"{name} is no array of a plain LoRA adapter; merge it with PEFT first")


def _find(name: str, base: Arrays) -> str | None:
    """Return the base's array of a name, which may have more or fewer leading components; None if there is none."""
    if name in base:
        return name
    found = [other for other in base if f".{name}".endswith(f".{other}") or f".{other}".endswith(f".{name}")]
    if len(found) > 1:
        raise InputError(f"the adapter's {name} may be {' or '.join(sorted(found))} of the base model")
    return found[0] if found else None


def _scale(module: str, rank: int, config: Mapping[str, Any]) -> float:
    """Return alpha / rank of a layer. Patterns are regular expressions of the end of its name."""
    patterns: Mapping[str, float] = config.get("alpha_pattern") or {}
    alphas = (alpha for pattern, alpha in patterns.items() if re.fullmatch(rf"(.*\.)?({pattern})", module))
    alpha = next(alphas, config.get("lora_alpha", 8))
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _multiply(a: np.ndarray, b: np.ndarray, fan_in_fan_out: bool) -> np.ndarray:
    """Return B A in float64, in the layer's shape: A [r, in] or [r, in, h, w], B [out, r] or [out, r, 1, 1]."""
    rank = len(a)
    product = b.astype(np.float64).reshape(-1, rank) @ a.astype(np.float64).reshape(rank, -1)
    if a.ndim == 2:
        return product.T if fan_in_fan_out else product
    return product.reshape(-1, *a.shape[1:])


def _add(name: str, weight: np.ndarray, delta: np.ndarray) -> np.ndarray:
    if weight.shape != delta.shape:
        raise InputError(f"{name} has shape {weight.shape} in the base model, and {delta.shape} in the adapter")
    return (weight + delta).astype(np.float64 if weight.dtype == np.float64 else np.float32)
