"""config.json of timm (https://github.com/huggingface/pytorch-image-models), or of transformers' timm_wrapper.

{"architecture": name, "global_pool": name, "model_args": {...}, "pretrained_cfg": {"mean": ..., "crop_pct": ..., ...}};
older files have the fields of pretrained_cfg at the top.
"""

from collections.abc import Mapping
from typing import Any

from vit_jax import InputError
from weights_convert.sidecar.config import SidecarConfig
from weights_convert.sidecar.timm_architectures import find_architecture
from weights_convert.sidecar.values import (
    choose,
    drop_nulls,
    parse_channels,
    parse_class_names,
    parse_count,
    parse_number,
    parse_pair,
    reject_unknown,
    reject_unsupported,
)

KERNELS = {name: name for name in ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")}
ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_tanh", "quick_gelu": "quick_gelu", "relu": "relu"}
TIMM_POOLING = {"token": "cls", "avg": "gap", "map": "map"}
NORM_EPS = {"layernorm": 1e-6, "layernormfp32": 1e-6}  # of timm's own layers, not of torch's
# What timm.data.resolve_data_config takes for a missing or null field.
PREPROCESS = {
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "interpolation": "bicubic",
    "crop_pct": 0.875,
    "crop_mode": "center",
}

# Arguments of VisionTransformer: those that arrays show or only training uses, those that are floats of ViTConfig, and
# those that change the output and are not supported.
SHOWN_ARGUMENTS = (
    "img_size", "patch_size", "in_chans", "num_classes", "embed_dim", "depth", "mlp_ratio", "qkv_bias", "proj_bias",
    "init_values", "class_token", "no_embed_class", "reg_tokens", "pre_norm", "final_norm", "fc_norm",
    "weight_init", "fix_init", "drop_rate", "pos_drop_rate", "patch_drop_rate",
    "dynamic_img_size", "dynamic_img_pad", "strict_img_size", "pretrained_strict",
)  # fmt: skip
FLOATS = {"dropout": "proj_drop_rate", "attention_dropout": "attn_drop_rate", "drop_path": "drop_path_rate"}
UNSUPPORTED_ARGUMENTS = (
    "qk_norm", "scale_attn_norm", "scale_mlp_norm", "embed_layer", "embed_norm_layer", "block_fn", "mlp_layer",
    "attn_layer", "use_naflex", "features_only",
)  # fmt: skip
APPLIED_ARGUMENTS = ("num_heads", "act_layer", "norm_layer", "global_pool", "pool_include_prefix", "pos_embed")


def parse_timm(config: Mapping[str, Any]) -> SidecarConfig:
    """Return the settings in a config.json of timm.

    Raises InputError for an architecture or a setting that is not supported, and for arguments of unknown effect.
    """
    pretrained = drop_nulls(config.get("pretrained_cfg", config))
    arguments = drop_nulls(config.get("model_args"))
    reject_unsupported(pretrained, ("label_offset",))
    channels, *size = pretrained.get("input_size", [3])
    size = arguments.get("img_size", size)
    fields = find_architecture(str(config["architecture"])) | _parse_arguments(arguments)
    notes = _set_pooling(config, arguments, fields)
    return SidecarConfig(
        family="timm",
        config_fields=fields,
        preprocess_fields=_parse_preprocess(pretrained, parse_count(arguments.get("in_chans", channels), "in_chans")),
        image_size=parse_pair(size) if size else None,
        class_names=parse_class_names(
            config.get("label_names") or pretrained.get("label_names", pretrained.get("labels"))
        ),
        files=("config.json",),
        notes=notes,
    )


def _parse_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of ViTConfig that the arguments of the model state, the pooling aside."""
    reject_unknown(
        arguments, (*SHOWN_ARGUMENTS, *FLOATS.values(), *UNSUPPORTED_ARGUMENTS, *APPLIED_ARGUMENTS), "model_args"
    )
    reject_unsupported(arguments, UNSUPPORTED_ARGUMENTS)
    fields: dict[str, Any] = {
        name: parse_number(arguments[key], key) for name, key in FLOATS.items() if key in arguments
    }
    if "num_heads" in arguments:
        fields["num_heads"] = parse_count(arguments["num_heads"], "num_heads")
    if "act_layer" in arguments:
        fields["activation"] = choose(ACTIVATIONS, arguments["act_layer"], "act_layer")
    if "norm_layer" in arguments:
        norm_layer = str(arguments["norm_layer"]).replace("_", "").lower()
        fields["norm_eps"] = choose(NORM_EPS, norm_layer, "norm_layer")
    if arguments.get("pos_embed", "learn") != "learn":
        raise InputError(f"not supported: pos_embed = {arguments['pos_embed']!r}")
    return fields


def parse_pooling(stated: Any, name: str, architecture: str) -> str:
    """Return ViTConfig.pooling of timm's name for it. Perception Encoder's attention pooling reads [class] too."""
    pooling = choose(TIMM_POOLING, stated, name)
    return "map_all" if pooling == "map" and architecture.startswith("vit_pe_") else pooling


def _set_pooling(config: Mapping[str, Any], arguments: Mapping[str, Any], fields: dict[str, Any]) -> tuple[str, ...]:
    """Set the pooling that a config states, if any; return notes to print."""
    stated = config.get("global_pool", arguments.get("global_pool"))
    if arguments.get("global_pool", stated) != stated:
        raise InputError(f"global_pool is {stated!r}, but {arguments['global_pool']!r} in model_args")
    if stated == "":
        if config.get("num_classes"):
            raise InputError("not supported: global_pool = '' with a head: the original returns logits of every token")
        return ("config.json: the original returns every token (global_pool is empty); here they are pooled",)
    if stated is not None:
        fields["pooling"] = parse_pooling(stated, "global_pool", str(config["architecture"]))
    if arguments.get("pool_include_prefix") and stated != "token":
        if stated != "avg":
            raise InputError(f"not supported: pool_include_prefix = True with global_pool = {stated!r}")
        fields["pooling"] = "mean"
    return ()


def _parse_preprocess(pretrained: Mapping[str, Any], channels: int) -> dict[str, Any]:
    """Return the fields of Preprocess; none if the config states nothing about preprocessing."""
    if not set(pretrained) & set(PREPROCESS):
        return {}
    stated: dict[str, Any] = PREPROCESS | {name: pretrained[name] for name in PREPROCESS if name in pretrained}
    if stated["crop_mode"] not in ("center", "squash"):
        raise InputError(f"not supported: crop_mode = {stated['crop_mode']!r}; one of center, squash")
    fraction = parse_number(stated["crop_pct"], "crop_pct")
    if not 0 < fraction <= 1:
        raise InputError(f"not supported: crop_pct = {fraction}, outside (0, 1]")
    is_squashed = stated["crop_mode"] == "squash"
    fields = {name: parse_channels(stated[name], channels, name) for name in ("mean", "std")}
    return fields | {
        "kernel": choose(KERNELS, stated["interpolation"], "interpolation"),
        "crop": None if is_squashed and fraction == 1 else fraction,
        "squash": is_squashed and fraction < 1,
    }
