"""Folders of Hugging Face's transformers: config.json and preprocessor_config.json.

Every setting that changes the output is written, also where it is a default of the class.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vit_jax import InputError, ViTConfig
from vit_jax.prediction import is_multi_label
from weights_convert.folders.huggingface_processor import describe_processor
from weights_convert.folders.target import Files, FolderTarget, require

ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "quick_gelu": "quick_gelu", "relu": "relu"}
MAX_MLP_RATIO = 64


@dataclass(frozen=True)
class ModelClass:
    """A class of transformers.

    name:       as "architectures" lists it.
    model_type: of its config.
    fixed:      fields of ViTConfig with the values that every model of the class has, apart from COMMON.
    """

    name: str
    model_type: str
    fixed: Mapping[str, Any]


COMMON = {
    "norm_position": "pre",
    "patch_norms": False,
    "out_bias": True,
}
# What only some families have.
PLAIN = COMMON | {
    "final_norm": "tokens",
    "pre_norm": False,
    "layer_scale": False,
    "num_registers": 0,
    "patch_bias": True,
    "distillation_head": False,
}
VIT = PLAIN | {"class_token": True, "class_position": True, "pooling": "cls"}
IJEPA = PLAIN | {"class_token": False, "pooling": "gap"}
DINOV2 = VIT | {"layer_scale": True, "distillation_token": False}
CLIP = VIT | {"pre_norm": True, "patch_bias": False, "qkv_bias": True, "distillation_token": False}
SIGLIP = PLAIN | {"class_token": False, "qkv_bias": True}
HEAD, NO_HEAD = {"representation": 0, "head_bias": True}, {"num_classes": 0}
POOLER = ("transformers' pooler_output has random weights; read last_hidden_state[:, 0]",)


def _choose_vit(config: ViTConfig) -> ModelClass:
    if not config.class_token:
        fixed = IJEPA | HEAD
        return ModelClass("IJepaForImageClassification" if config.num_classes else "IJepaModel", "ijepa", fixed)
    family, model_type = ("DeiT", "deit") if config.distillation_token else ("ViT", "vit")
    if not config.num_classes:
        return ModelClass(f"{family}Model", model_type, VIT | NO_HEAD)
    teacher = config.distillation_head
    fixed = VIT | HEAD | {"distillation_head": teacher}
    return ModelClass(f"{family}ForImageClassification{'WithTeacher' if teacher else ''}", model_type, fixed)


def _choose_dinov2(config: ViTConfig) -> ModelClass:
    family = "Dinov2WithRegisters" if config.num_registers else "Dinov2"
    model_type = "dinov2_with_registers" if config.num_registers else "dinov2"
    fixed = DINOV2 | HEAD | {"num_registers": config.num_registers}
    if config.num_classes:
        return ModelClass(f"{family}ForImageClassification", model_type, fixed | {"pooling": "cls_gap"})
    return ModelClass(f"{family}Model", model_type, fixed)


def _choose_clip(config: ViTConfig) -> ModelClass:
    if config.pooling == "gap":
        fixed = CLIP | HEAD | {"pooling": "gap", "final_norm": "none"}
        return ModelClass("CLIPForImageClassification", "clip", fixed)
    pooled = CLIP | {"final_norm": "pooled", "representation": 0}
    if config.num_classes:
        return ModelClass("CLIPVisionModelWithProjection", "clip_vision_model", pooled | {"head_bias": False})
    return ModelClass("CLIPVisionModel", "clip_vision_model", pooled)


def _choose_siglip(config: ViTConfig) -> ModelClass:
    if config.num_classes:
        return ModelClass("SiglipForImageClassification", "siglip", SIGLIP | HEAD | {"pooling": "gap"})
    return ModelClass("SiglipVisionModel", "siglip_vision_model", SIGLIP | HEAD | {"pooling": "map"})


CHOOSE = {"hf_vit": _choose_vit, "hf_dinov2": _choose_dinov2, "hf_clip": _choose_clip, "hf_siglip": _choose_siglip}


def _describe_files(layout: str, config: ViTConfig, class_names: tuple[str, ...]) -> Files:
    model_class = CHOOSE[layout](config)
    owner = f"transformers' {model_class.name}"
    require(config, model_class.fixed, owner)
    if config.heads_width != config.width:
        raise InputError(f"{owner} has heads of {config.width} in total, and this model of {config.heads_width}")
    vision = _describe_tower(config, model_class, owner)
    is_nested = model_class.model_type in ("clip", "siglip")
    stored = {
        "architectures": [model_class.name],
        "model_type": model_class.model_type,
        **({"vision_config": vision} if is_nested else vision),
        **_describe_labels(config, class_names, model_class),
    }
    return {"config.json": stored, "preprocessor_config.json": describe_processor(config)}


def _describe_tower(config: ViTConfig, model_class: ModelClass, owner: str) -> dict[str, Any]:
    is_dinov2 = model_class.model_type.startswith("dinov2")
    if config.activation not in ACTIVATIONS and not is_dinov2:
        raise InputError(f"{owner} has no activation {config.activation!r}: one of {', '.join(ACTIVATIONS)}")
    tower: dict[str, Any] = {
        "hidden_size": config.width,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.num_heads,
        "num_channels": config.in_channels,
        "hidden_act": ACTIVATIONS.get(config.activation, "gelu"),
        "layer_norm_eps": config.norm_eps,
        "image_size": _describe_size(config.image_size),
        "patch_size": _describe_size(config.patch_size),
    }
    if model_class.model_type.startswith(("clip", "siglip")):
        if config.image_size[0] != config.image_size[1] or config.patch_size[0] != config.patch_size[1]:
            raise InputError(f"{owner} has square pictures and patches, and this model has others")
        return (
            tower
            | {"intermediate_size": config.mlp_dim, "attention_dropout": config.attention_dropout}
            | ({"projection_dim": config.num_classes} if model_class.name.endswith("WithProjection") else {})
        )
    tower |= {
        "qkv_bias": config.qkv_bias,
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.attention_dropout,
    }
    if not is_dinov2:
        return tower | {"intermediate_size": config.mlp_dim} | _describe_pooler(config)
    tower |= {"mlp_ratio": _find_mlp_ratio(config, owner), "use_swiglu_ffn": config.activation == "swiglu"}
    registers = {"num_register_tokens": config.num_registers} if config.num_registers else {}
    return tower | {"drop_path_rate": config.drop_path} | registers


def _describe_size(size: tuple[int, int]) -> int | list[int]:
    return size[0] if size[0] == size[1] else list(size)


def _describe_pooler(config: ViTConfig) -> dict[str, Any]:
    """Return the fields of the dense layer after [class] that a model without a head may have."""
    if not config.representation:
        return {}
    return {"pooler_output_size": config.representation, "pooler_act": config.representation_activation}


def _find_mlp_ratio(config: ViTConfig, owner: str) -> int:
    """Return the whole number from which DINOv2 derives the width of its MLP. Raises InputError if there is none."""
    for ratio in range(1, MAX_MLP_RATIO + 1):
        hidden = config.width * ratio
        if config.activation == "swiglu":
            hidden = (hidden * 2 // 3 + 7) // 8 * 8
        if hidden == config.mlp_dim:
            return ratio
    raise InputError(
        f"{owner} has an MLP of a whole multiple of the width {config.width}, and this model {config.mlp_dim}"
    )


def _describe_labels(config: ViTConfig, class_names: tuple[str, ...], model_class: ModelClass) -> dict[str, Any]:
    if not config.num_classes or not model_class.name.endswith(("Classification", "WithTeacher")):
        return {}
    task = {"problem_type": f"{config.task}_classification"} if is_multi_label(config) else {}
    if not class_names:
        return {"num_labels": config.num_classes} | task
    if len(set(class_names)) < len(class_names):
        raise InputError("transformers needs distinct class names, and two classes of this model have one name")
    return {
        "id2label": {str(number): name for number, name in enumerate(class_names)},
        "label2id": {name: number for number, name in enumerate(class_names)},
        **task,
    }


def _make_target(layout: str) -> FolderTarget:
    def describe(config: ViTConfig, class_names: tuple[str, ...]) -> Files:
        return _describe_files(layout, config, class_names)

    def list_notes(config: ViTConfig) -> tuple[str, ...]:
        return POOLER if _has_untrained_pooler(layout, config) else ()

    return FolderTarget("transformers", describe, centre="floor", list_notes=list_notes)


def _has_untrained_pooler(layout: str, config: ViTConfig) -> bool:
    """Return whether transformers adds a pooler, a dense layer on [class], that the model does not have."""
    return layout == "hf_vit" and config.class_token and not config.num_classes and not config.representation


TARGETS = {layout: _make_target(layout) for layout in CHOOSE}
