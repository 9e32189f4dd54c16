"""open_clip_config.json of open_clip 3.3 (https://github.com/mlfoundations/open_clip)."""

from collections.abc import Mapping
from typing import Any

from vit_jax import InputError
from weights_convert.sidecar.config import SidecarConfig
from weights_convert.sidecar.timm import parse_pooling
from weights_convert.sidecar.timm_architectures import find_architecture
from weights_convert.sidecar.values import (
    choose,
    drop_nulls,
    parse_channels,
    parse_count,
    parse_pair,
    parse_positive,
    reject_unknown,
    reject_unsupported,
)

# The defaults of CLIPVisionCfg whose values matter here.
VISION = {
    "width": 768,
    "head_width": 64,
    "image_size": 224,
    "pool_type": "tok",
    "final_ln_after_pool": False,
    "no_ln_pre": False,
    "timm_pool": "avg",
    "timm_proj": "linear",
}
# What the arrays show, and what only training uses.
SHOWN = ("layers", "mlp_ratio", "patch_size", "ls_init_value", "pos_embed_type", "patch_dropout", "output_tokens")
TIMM_SHOWN = ("timm_model_pretrained", "timm_proj_bias", "timm_drop", "timm_drop_path")
# What changes the output and is not supported.
UNSUPPORTED = (
    "attentional_pool", "qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc",
)  # fmt: skip
# What has an effect only through a field above.
DEPENDENT = ("attn_pooler_queries", "attn_pooler_heads")
APPLIED = (*VISION, "act_kwargs", "norm_kwargs", "block_type", "timm_model_name")
PREPROCESS = {
    "mean": (0.48145466, 0.4578275, 0.40821073),
    "std": (0.26862954, 0.26130258, 0.27577711),
    "interpolation": "bicubic",
    "resize_mode": "shortest",
    "mode": "RGB",
}
# "random" is of training only.
KERNELS = {"bicubic": "bicubic", "bilinear": "bilinear", "random": "bicubic"}
APPROXIMATIONS = {"none": "gelu", "tanh": "gelu_tanh"}
POOLING = {"tok": "cls", "avg": "gap"}
RESIZE_MODES: dict[str, dict[str, Any]] = {"shortest": {"crop": 1.0}, "squash": {"crop": None}}


def parse_open_clip(config: Mapping[str, Any]) -> SidecarConfig:
    """Return the settings in an open_clip_config.json.

    Raises InputError for a tower or a setting that is not supported, and for fields of unknown effect.
    """
    model = config["model_cfg"]
    stored = drop_nulls(model["vision_cfg"])
    reject_unknown(stored, (*APPLIED, *SHOWN, *TIMM_SHOWN, *UNSUPPORTED, *DEPENDENT), "vision_cfg")
    reject_unsupported(stored, UNSUPPORTED)
    vision = VISION | stored
    image_size = parse_pair(vision["image_size"])
    is_timm = "timm_model_name" in vision
    return SidecarConfig(
        family="timm" if is_timm else "openai",
        config_fields=_parse_timm_tower(vision) if is_timm else _parse_tower(vision, bool(model.get("quick_gelu"))),
        preprocess_fields=_parse_preprocess(PREPROCESS | drop_nulls(config.get("preprocess_cfg")), image_size),
        image_size=image_size,
        files=("open_clip_config.json",),
    )


def _parse_tower(vision: Mapping[str, Any], is_quick: bool) -> dict[str, Any]:
    """Return the fields of ViTConfig of open_clip's own VisionTransformer."""
    if isinstance(vision.get("layers"), list):
        raise InputError("not supported: a ResNet tower (layers is a list)")
    if vision.get("block_type", "default") != "default":
        raise InputError(f"not supported: block_type = {vision['block_type']!r}")
    norm, act = drop_nulls(vision.get("norm_kwargs")), drop_nulls(vision.get("act_kwargs"))
    reject_unknown(norm, ("eps",), "norm_kwargs")
    reject_unknown(act, () if is_quick else ("approximate",), "act_kwargs")
    activation = choose(APPROXIMATIONS, act.get("approximate", "none"), "act_kwargs approximate")
    fields: dict[str, Any] = {
        "num_heads": parse_count(vision["width"], "width") // parse_count(vision["head_width"], "head_width"),
        "activation": "quick_gelu" if is_quick else activation,
        "norm_eps": parse_positive(norm.get("eps", 1e-5), "eps"),
        "pooling": choose(POOLING, vision["pool_type"], "pool_type"),
    }
    if fields["pooling"] == "gap":
        fields["final_norm"] = "pooled" if vision["final_ln_after_pool"] else "tokens"
    return fields | ({"pre_norm": False} if vision["no_ln_pre"] else {})


def _parse_timm_tower(vision: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of ViTConfig of a tower of timm's, which ignores the quick_gelu of the model."""
    if vision["timm_proj"] not in ("", "linear", "none"):
        raise InputError(f"not supported: timm_proj = {vision['timm_proj']!r}")
    fields = find_architecture(str(vision["timm_model_name"]))
    if vision["timm_pool"]:
        fields["pooling"] = parse_pooling(vision["timm_pool"], "timm_pool", vision["timm_model_name"])
    return fields


def _parse_preprocess(stored: Mapping[str, Any], image_size: tuple[int, int]) -> dict[str, Any]:
    if stored["mode"] != "RGB":
        raise InputError(f"not supported: mode = {stored['mode']!r}")
    fields = dict(choose(RESIZE_MODES, stored["resize_mode"], "resize_mode (supported are shortest and squash)"))
    fields["kernel"] = choose(KERNELS, stored["interpolation"], "interpolation")
    if fields["crop"] and image_size[0] != image_size[1]:
        fields["kernel"] = "bicubic"  # open_clip does not pass the interpolation on to this resize
    return fields | {name: parse_channels(stored[name], 3, name) for name in ("mean", "std")}
