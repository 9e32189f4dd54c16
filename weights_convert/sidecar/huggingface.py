"""config.json of Hugging Face's transformers.

save_pretrained leaves out what is equal to the default of the model's class, so missing fields have those defaults.
"""

from collections.abc import Mapping
from typing import Any

from vit_jax import InputError
from vit_jax.config import MULTI_LABEL, SINGLE_LABEL
from vit_jax.position import Rotary
from weights_convert.layouts.unsupported import AIMV2_NATIVE, NAFLEX
from weights_convert.sidecar.config import SidecarConfig
from weights_convert.sidecar.values import (
    choose,
    drop_nulls,
    parse_class_names,
    parse_count,
    parse_number,
    parse_pair,
    parse_positive,
    reject_unsupported,
)

ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_accurate": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_python_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "silu": "swiglu",  # of a gated MLP
}
TASKS = {"single_label_classification": SINGLE_LABEL, "multi_label_classification": MULTI_LABEL}
POOLER_ACTIVATIONS = {"tanh": "tanh", "gelu": "gelu", "relu": "relu"}
FLOATS = {
    "dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
    "drop_path": "drop_path_rate",
}

# The defaults of the classes, and the kind of image processor that goes with them (huggingface_processor.py).
_ALL = {
    "num_attention_heads": 12, "image_size": 224, "num_channels": 3, "hidden_dropout_prob": 0.0, "drop_path_rate": 0.0,
}  # fmt: skip
_VIT = _ALL | {"processor": "ViT", "hidden_act": "gelu", "layer_norm_eps": 1e-12, "pooler_act": "tanh"}
_DINOV2 = _ALL | {"processor": "Bit", "hidden_act": "gelu", "layer_norm_eps": 1e-6}
_CLIP = _ALL | {"processor": "CLIP", "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
_SIGLIP = _ALL | {"processor": "Siglip", "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6}
_DINOV3 = _ALL | {
    "processor": "DINOv3ViT", "num_attention_heads": 6, "hidden_act": "gelu", "layer_norm_eps": 1e-5,
    "rope_theta": 100.0,
}  # fmt: skip
_REGISTERS = _DINOV2 | {"posemb_resize": "bicubic_antialias"}
_TIPSV2 = _DINOV2 | {"processor": "Tipsv2", "image_size": 448, "posemb_resize": "bilinear_antialias"}
_AIMV2 = _ALL | {
    "processor": "CLIP", "num_attention_heads": 8, "hidden_act": "silu", "use_gated_mlp": True, "rms_norm_eps": 1e-5,
}  # fmt: skip
_BEIT = _VIT | {"processor": "Beit", "drop_path_rate": 0.1}
MODEL_TYPES: dict[str, dict[str, Any]] = {
    "dinov3_vit": _DINOV3,
    "beit": _BEIT,
    "vit": _VIT,
    "deit": _VIT | {"processor": "DeiT"},
    "ijepa": _VIT,
    "vit_mae": _VIT,
    "dinov2": _DINOV2,
    "dinov2_with_registers": _REGISTERS,
    "clip": _CLIP,
    "clip_vision_model": _CLIP,
    "tipsv2": _TIPSV2,
    "tipsv2_vision_model": _TIPSV2,
    "aimv2": _AIMV2,
    "aimv2_vision_model": _AIMV2,
    "siglip": _SIGLIP,
    "siglip_vision_model": _SIGLIP,
}
REFUSED = {"siglip2": NAFLEX, "siglip2_vision_model": NAFLEX}
NOTES = {
    "vit_mae": "config.json: the original hides a random share of the patches (mask_ratio); here the encoder sees all",
}


def resolve_vision_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a config's image model, with the defaults of its class.

    Raises InputError for a model type that is not supported.
    """
    model_type = str(config["model_type"])
    if model_type in REFUSED:
        raise InputError(REFUSED[model_type])
    if model_type not in MODEL_TYPES:
        raise InputError(f"model_type {model_type!r} is not supported: one of {', '.join(MODEL_TYPES)}, timm_wrapper")
    # The oldest CLIP files have both; transformers lets vision_config_dict win.
    vision = config.get("vision_config_dict") or config.get("vision_config") or config
    return MODEL_TYPES[model_type] | drop_nulls(vision)


def parse_huggingface(config: Mapping[str, Any]) -> SidecarConfig:
    """Return the settings in a config.json. Raises InputError for a model or a setting that is not supported."""
    vision = resolve_vision_settings(config)
    reject_unsupported(config, ("quantization_config", "pruned_heads"))
    fields: dict[str, Any] = {
        "num_heads": parse_count(vision["num_attention_heads"], "num_attention_heads"),
        "activation": choose(ACTIVATIONS, vision["hidden_act"], "hidden_act"),
        "norm_eps": _parse_eps(vision),
    }
    if vision.get("is_native"):
        raise InputError(AIMV2_NATIVE)
    # CLIP and SigLIP have another name for it.
    vision.setdefault("attention_probs_dropout_prob", vision.get("attention_dropout", 0.0))
    fields |= {name: parse_number(vision[key], key) for name, key in FLOATS.items()}
    if "posemb_resize" in vision:
        fields["posemb_resize"] = vision["posemb_resize"]
    if "rope_theta" in vision:
        fields["rotary"] = Rotary(temperature=parse_positive(vision["rope_theta"], "rope_theta"))
    if vision.get("use_gated_mlp") and fields["activation"] != "swiglu":
        raise InputError(f"not supported: use_gated_mlp with hidden_act {vision['hidden_act']!r}")
    pooler = choose(POOLER_ACTIVATIONS, vision.get("pooler_act", "tanh"), "pooler_act")
    if pooler != "tanh":
        fields["representation_activation"] = pooler
    if "problem_type" in (stated := drop_nulls(config)):
        fields["task"] = choose(TASKS, stated["problem_type"], "problem_type")
    note = NOTES.get(config["model_type"])
    return SidecarConfig(
        family="hf",
        config_fields=fields,
        image_size=parse_pair(vision["image_size"]),
        class_names=parse_class_names(config.get("id2label")),
        files=("config.json",),
        notes=(note,) if note else (),
    )


def _parse_eps(vision: Mapping[str, Any]) -> float:
    name = "rms_norm_eps" if "rms_norm_eps" in vision else "layer_norm_eps"
    return parse_positive(vision[name], name)
