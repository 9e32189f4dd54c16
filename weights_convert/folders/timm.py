"""Folders of timm: config.json, for timm.create_model("local-dir:FOLDER", pretrained=True).

The architecture is one of timm's functions for what its arguments cannot state: eps, SwiGLU, distillation. model_args
then states every other setting, also where the function has the same value.
"""

from typing import Any

from vit_jax import InputError, ViTConfig
from weights_convert.folders.target import Files, FolderTarget, find_ratio, require, require_three_channels

TITLE = "timm"
POOLING = {"cls": "token", "gap": "avg", "mean": "avg", "map": "map"}
# timm's functions by the settings that they fix: (distillation token, SwiGLU, eps).
ARCHITECTURES = {
    (False, False, 1e-6): "vit_base_patch16_224",
    (False, False, 1e-5): "vit_base_patch16_clip_224",
    (False, True, 1e-6): "vit_giant_patch14_dinov2",
    (True, False, 1e-6): "deit_base_distilled_patch16_224",
}
FIXED = {
    "norm_position": "pre",
    "patch_norms": False,
    "norm": "layer",
    "embed_norm": False,
    "mlp_bias": True,
    "plain_pool": False,
    "out_bias": True,
    "head_bias": True,
    "representation": 0,
}


def _describe_files(config: ViTConfig, class_names: tuple[str, ...]) -> Files:
    require(config, FIXED | {"patch_bias": not config.pre_norm}, "timm's VisionTransformer")
    require_three_channels(config, TITLE)
    if config.heads_width != config.width:
        raise InputError(f"timm has heads of {config.width} in total, and this model of {config.heads_width}")
    if config.num_registers and config.prefix_positions:
        raise InputError("timm has registers only where [class] has no position, and this model's [class] has one")
    arguments = _describe_arguments(config)
    stored = {
        "architecture": _choose_architecture(config),
        "num_classes": config.num_classes,
        "num_features": config.width,
        "global_pool": arguments["global_pool"],
        "model_args": arguments,
        "pretrained_cfg": _describe_pretrained(config),
        **({"label_names": list(class_names)} if class_names else {}),
    }
    return {"config.json": stored}


def _choose_architecture(config: ViTConfig) -> str:
    key = (config.distillation_token, config.activation == "swiglu", config.norm_eps)
    if config.distillation_token:
        fixed = {"class_token": True, "class_position": True, "distillation_head": True, "pooling": "cls"}
        require(
            config, fixed | {"num_registers": 0, "final_norm": "tokens", "pre_norm": False}, "timm's distilled DeiT"
        )
    if key not in ARCHITECTURES:
        kind = "a distilled model" if key[0] else "a SwiGLU" if key[1] else "a model"
        values = [f"{eps:g}" for *rest, eps in ARCHITECTURES if tuple(rest) == key[:2]]
        remedy = f"norm_eps {' or '.join(values)}" if values else "another activation"
        raise InputError(f"timm has no name for {kind} with norm_eps {config.norm_eps:g}: it needs {remedy}")
    return ARCHITECTURES[key]


def _describe_arguments(config: ViTConfig) -> dict[str, Any]:
    if config.pooling not in POOLING:
        raise InputError(f"timm has no pooling {config.pooling!r}: one of {', '.join(POOLING)}")
    gated = config.activation == "swiglu"
    if gated and config.pooling == "map":
        raise InputError("timm has no attention pooling with a SwiGLU")
    arguments: dict[str, Any] = {
        "img_size": list(config.image_size),
        "patch_size": config.patch_size[0] if len(set(config.patch_size)) == 1 else list(config.patch_size),
        "embed_dim": config.width,
        "depth": config.depth,
        "num_heads": config.num_heads,
        "mlp_ratio": find_ratio(config.mlp_dim * (2 if gated else 1), config.width),
        "qkv_bias": config.qkv_bias,
        "init_values": 1.0 if config.layer_scale else None,
        "global_pool": POOLING[config.pooling],
        "proj_drop_rate": config.dropout,
        "attn_drop_rate": config.attention_dropout,
        "drop_path_rate": config.drop_path,
    }
    arguments |= {} if gated else {"act_layer": config.activation}
    if config.distillation_token:
        return arguments
    return arguments | {
        "class_token": config.class_token,
        "no_embed_class": not config.prefix_positions,
        "reg_tokens": config.num_registers,
        "pre_norm": config.pre_norm,
        "final_norm": config.final_norm != "none",
        "fc_norm": config.final_norm == "pooled" and config.pooling == "gap",
        "pool_include_prefix": config.pooling == "mean",
    }


def _describe_pretrained(config: ViTConfig) -> dict[str, Any]:
    settings = config.preprocess
    is_squashed = settings.crop is None or settings.squash
    return {
        "tag": "vit_jax",
        "custom_load": False,
        "input_size": [config.in_channels, *config.image_size],
        "fixed_input_size": True,
        "interpolation": settings.kernel,
        "crop_pct": 1.0 if settings.crop is None else settings.crop,
        "crop_mode": "squash" if is_squashed else "center",
        "mean": list(settings.mean),
        "std": list(settings.std),
        "num_classes": config.num_classes,
        "pool_size": None,
        "first_conv": "patch_embed.proj",
        "classifier": ["head", "head_dist"] if config.distillation_token else "head",
    }


TARGETS = {"timm": FolderTarget(TITLE, _describe_files, centre="round")}
