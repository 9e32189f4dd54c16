"""Which class of transformers a model is, and the values of its config that every model of the class has."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from vit_jax import ViTConfig
from weights_convert.layouts import dinov2


@dataclass(frozen=True)
class ModelClass:
    """A class of transformers.

    name:       as "architectures" lists it.
    model_type: of its config.
    fixed:      fields of ViTConfig with the values that every model of the class has.
    """

    name: str
    model_type: str
    fixed: Mapping[str, Any]


COMMON = {
    "norm_position": "pre",
    "patch_norms": False,
    "pre_norm": False,
    "distillation_token": False,
    "distillation_head": False,
    "attention_norm": False,
    "mlp_norm": False,
    "norm": "layer",
    "embed_norm": False,
    "mlp_bias": True,
    "plain_pool": False,
}
# What only some families have.
PLAIN = COMMON | {
    "out_bias": True,
    "final_norm": "tokens",
    "layer_scale": False,
    "num_registers": 0,
    "patch_bias": True,
    "position_table": True,
    "rotary": None,
    "relative_bias": "none",
}
VIT = PLAIN | {"class_token": True, "class_position": True, "pooling": "cls"}
IJEPA = PLAIN | {"class_token": False, "pooling": "gap"}
DINOV2 = VIT | {"layer_scale": True}
CLIP = VIT | {"pre_norm": True, "patch_bias": False, "qkv_bias": True}
SIGLIP = PLAIN | {"class_token": False, "qkv_bias": True}
HEAD, NO_HEAD = {"representation": 0, "head_bias": True}, {"num_classes": 0, "representation": 0}
# Of a model without a head, the others' heads being elsewhere.
DINOV3 = COMMON | NO_HEAD | {
    "class_token": True, "position_table": False, "relative_bias": "none", "pooling": "cls", "final_norm": "tokens",
    "layer_scale": True, "patch_bias": True,
}  # fmt: skip
TIPSV2 = DINOV2 | NO_HEAD | {"num_registers": 1, "posemb_resize": dinov2.TIPSV2_RESIZE}
BEIT = COMMON | HEAD | {
    "class_token": True, "class_position": True, "num_registers": 0, "rotary": None, "key_bias": False,
    "qkv_bias": True, "out_bias": True, "patch_bias": True,
}  # fmt: skip
AIMV2 = PLAIN | NO_HEAD | {
    "class_token": False, "norm": "rms", "embed_norm": True, "activation": "swiglu",
}  # fmt: skip


def _choose_vit(config: ViTConfig) -> ModelClass:
    if not config.class_token:
        fixed = IJEPA | HEAD
        return ModelClass("IJepaForImageClassification" if config.num_classes else "IJepaModel", "ijepa", fixed)
    distilled, teacher = config.distillation_token, config.distillation_head
    family, model_type = ("DeiT", "deit") if distilled else ("ViT", "vit")
    fixed = VIT | {"distillation_token": distilled, "distillation_head": teacher}
    if not config.num_classes:
        return ModelClass(f"{family}Model", model_type, fixed | {"num_classes": 0})
    return ModelClass(f"{family}ForImageClassification{'WithTeacher' if teacher else ''}", model_type, fixed | HEAD)


def _choose_dinov2(config: ViTConfig) -> ModelClass:
    family = "Dinov2WithRegisters" if config.num_registers else "Dinov2"
    model_type = "dinov2_with_registers" if config.num_registers else "dinov2"
    fixed = DINOV2 | HEAD | {"num_registers": config.num_registers}
    if config.num_classes:
        return ModelClass(f"{family}ForImageClassification", model_type, fixed | {"pooling": "cls_gap"})
    return ModelClass(f"{family}Model", model_type, fixed)


def _choose_beit(config: ViTConfig) -> ModelClass:
    is_mean = config.final_norm == "pooled"
    pooling = {"pooling": "gap"} if is_mean else {"pooling": "cls", "final_norm": "tokens"}
    return ModelClass("BeitForImageClassification" if config.num_classes else "BeitModel", "beit", BEIT | pooling)


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


def _choose_aimv2(config: ViTConfig) -> ModelClass:
    pooling = {"pooling": "map", "plain_pool": True} if config.pools_by_attention else {"pooling": "gap"}
    biases = {"out_bias": config.qkv_bias, "mlp_bias": config.mlp_bias}
    return ModelClass("Aimv2VisionModel", "aimv2_vision_model", AIMV2 | pooling | biases)


CHOOSE: dict[str, Callable[[ViTConfig], ModelClass]] = {
    "hf_vit": _choose_vit,
    "hf_dinov2": _choose_dinov2,
    "hf_dinov3": lambda config: ModelClass("DINOv3ViTModel", "dinov3_vit", DINOV3),
    "dinov2": lambda config: ModelClass("Tipsv2VisionModel", "tipsv2_vision_model", TIPSV2),
    "hf_beit": _choose_beit,
    "hf_clip": _choose_clip,
    "hf_siglip": _choose_siglip,
    "hf_aimv2": _choose_aimv2,
}
