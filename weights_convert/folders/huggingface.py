"""Folders of Hugging Face's transformers: config.json and preprocessor_config.json.

Every setting that changes the output is written, also where it is a default of the class.
"""

from collections.abc import Callable
from typing import Any

from vit_jax import InputError, ViTConfig
from vit_jax.prediction import is_multi_label
from weights_convert.folders.huggingface_classes import CHOOSE, ModelClass
from weights_convert.folders.huggingface_processor import describe_processor
from weights_convert.folders.target import Files, FolderTarget, find_ratio, require

ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "quick_gelu": "quick_gelu", "relu": "relu"}
MAX_MLP_RATIO = 64
POOLER = ("transformers' pooler_output has random weights; read last_hidden_state[:, 0]",)
NO_POOLER = ("transformers gives no pooled output; take the mean of last_hidden_state",)


def _describe_files(layout: str, config: ViTConfig, class_names: tuple[str, ...]) -> Files:
    _, stored = describe_config(layout, config, class_names)
    return {"config.json": stored, "preprocessor_config.json": describe_processor(config)}


def describe_config(
    layout: str, config: ViTConfig, class_names: tuple[str, ...] = ()
) -> tuple[ModelClass, dict[str, Any]]:
    """Return the class of transformers that loads a layout of CHOOSE, and its config.json.

    Raises InputError for a setting that the class cannot express.
    """
    model_class = CHOOSE[layout](config)
    owner = f"transformers' {model_class.name}"
    require(config, model_class.fixed, owner)
    if config.heads_width != config.width:
        raise InputError(f"{owner} has heads of {config.width} in total, and this model of {config.heads_width}")
    vision = _describe_shape(config) | DESCRIBE[layout](config, owner)
    is_nested = model_class.model_type in ("clip", "siglip")
    stored = {
        "architectures": [model_class.name],
        "model_type": model_class.model_type,
        **({"vision_config": vision} if is_nested else vision),
        **_describe_labels(config, class_names, model_class),
    }
    return model_class, stored


def _describe_shape(config: ViTConfig) -> dict[str, Any]:
    """Return the fields that every class has."""
    return {
        "hidden_size": config.width,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.num_heads,
        "num_channels": config.in_channels,
        "layer_norm_eps": config.norm_eps,
        "image_size": _describe_size(config.image_size),
        "patch_size": _describe_size(config.patch_size),
    }


def _describe_activation(config: ViTConfig, owner: str) -> dict[str, Any]:
    if config.activation not in ACTIVATIONS:
        raise InputError(f"{owner} has no activation {config.activation!r}: one of {', '.join(ACTIVATIONS)}")
    return {"hidden_act": ACTIVATIONS[config.activation]}


def _describe_dropouts(config: ViTConfig) -> dict[str, Any]:
    return {"hidden_dropout_prob": config.dropout, "attention_probs_dropout_prob": config.attention_dropout}


def _check_square(config: ViTConfig, owner: str) -> None:
    if config.image_size[0] != config.image_size[1] or config.patch_size[0] != config.patch_size[1]:
        raise InputError(f"{owner} has square pictures and patches, and this model has others")


def _describe_vit(config: ViTConfig, owner: str) -> dict[str, Any]:
    mlp = {"intermediate_size": config.mlp_dim, "qkv_bias": config.qkv_bias}
    return _describe_activation(config, owner) | mlp | _describe_dropouts(config) | _describe_pooler(config)


def _describe_clip(config: ViTConfig, owner: str) -> dict[str, Any]:
    _check_square(config, owner)
    has_projection = config.num_classes and config.pooling == "cls"
    return {
        **_describe_activation(config, owner),
        "intermediate_size": config.mlp_dim,
        "attention_dropout": config.attention_dropout,
        **({"projection_dim": config.num_classes} if has_projection else {}),
    }


def _describe_dinov2(config: ViTConfig, owner: str) -> dict[str, Any]:
    return _describe_scaled(config, owner) | {"mlp_ratio": _find_mlp_ratio(config, owner)}


def _describe_tipsv2(config: ViTConfig, owner: str) -> dict[str, Any]:
    _check_square(config, owner)
    is_gated = config.activation == "swiglu"
    ratio = _find_mlp_ratio(config, owner) if is_gated else find_ratio(config.mlp_dim, config.width)
    return _describe_scaled(config, owner) | {"mlp_ratio": ratio}


def _describe_scaled(config: ViTConfig, owner: str) -> dict[str, Any]:
    """Return the fields that DINOv2 and TIPSv2 share."""
    gated = config.activation == "swiglu"
    return {
        **({"hidden_act": "gelu"} if gated else _describe_activation(config, owner)),
        "qkv_bias": config.qkv_bias,
        **_describe_dropouts(config),
        "drop_path_rate": config.drop_path,
        "use_swiglu_ffn": gated,
        **({"num_register_tokens": config.num_registers} if config.num_registers else {}),
    }


def _describe_dinov3(config: ViTConfig, owner: str) -> dict[str, Any]:
    gated = config.activation == "swiglu"
    if config.rotary is None:
        raise InputError(f"{owner} has rotary positions, and this model has none")
    return {
        **({"hidden_act": "silu"} if gated else _describe_activation(config, owner)),
        "intermediate_size": config.mlp_dim,
        "use_gated_mlp": gated,
        "query_bias": config.qkv_bias,
        "key_bias": config.qkv_bias and config.key_bias,
        "value_bias": config.qkv_bias,
        "proj_bias": config.out_bias,
        "num_register_tokens": config.num_registers,
        "rope_theta": config.rotary.temperature,
        "attention_dropout": config.attention_dropout,
        "drop_path_rate": config.drop_path,
    }


def _describe_beit(config: ViTConfig, owner: str) -> dict[str, Any]:
    return {
        **_describe_activation(config, owner),
        "intermediate_size": config.mlp_dim,
        **_describe_dropouts(config),
        "drop_path_rate": config.drop_path,
        "use_absolute_position_embeddings": config.position_table,
        "use_relative_position_bias": config.relative_bias == "blocks",
        "use_shared_relative_position_bias": config.relative_bias == "shared",
        "use_mean_pooling": config.final_norm == "pooled",
        "layer_scale_init_value": 0.1 if config.layer_scale else 0.0,
    }


def _describe_aimv2(config: ViTConfig, owner: str) -> dict[str, Any]:
    _check_square(config, owner)
    return {
        "hidden_act": "silu",
        "intermediate_size": config.mlp_dim,
        "rms_norm_eps": config.norm_eps,
        "qkv_bias": config.qkv_bias,
        "mlp_bias": config.mlp_bias,
        "use_head": config.pools_by_attention,
        "is_native": False,
        "attention_dropout": config.attention_dropout,
    }


DESCRIBE: dict[str, Callable[[ViTConfig, str], dict[str, Any]]] = {
    "hf_vit": _describe_vit,
    "hf_dinov2": _describe_dinov2,
    "hf_dinov3": _describe_dinov3,
    "dinov2": _describe_tipsv2,
    "hf_beit": _describe_beit,
    "hf_clip": _describe_clip,
    "hf_siglip": _describe_clip,
    "hf_aimv2": _describe_aimv2,
}


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
        if _has_untrained_pooler(layout, config):
            return POOLER
        has_none = layout in ("hf_vit", "hf_aimv2") and config.pooling == "gap" and not config.num_classes
        return NO_POOLER if has_none else ()

    return FolderTarget("transformers", describe, centre="floor", list_notes=list_notes)


def _has_untrained_pooler(layout: str, config: ViTConfig) -> bool:
    """Return whether transformers adds a pooler, a dense layer on [class], that the model does not have."""
    return layout == "hf_vit" and config.class_token and not config.num_classes and not config.representation


TARGETS = {layout: _make_target(layout) for layout in CHOOSE}
