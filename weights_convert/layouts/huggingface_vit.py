"""Hugging Face ViT, DeiT, MAE and I-JEPA as save_pretrained writes them.

A class with a head stores its tower under a prefix (vit., deit., ijepa.), a bare tower has none; the rules here have
none. I-JEPA is a ViT without [class] that pools by the mean. Decoders of pretraining are not used. transformers 5 uses
other names in memory than in files: both are read.
"""

import re

from vit_jax import ViTConfig
from vit_jax.preprocess import Preprocess
from weights_convert.layouts.inference import Shapes, count_layers, count_rows, infer_grid
from weights_convert.layouts.layout import Layout
from weights_convert.layouts.preprocessing import DEIT_HF, GOOGLE, SQUASH_HF
from weights_convert.rules import CONV, Rule, dense, fused_qkv, norm

ENCODER = "encoder.layer.{i}."
IN_MEMORY = (  # transformers 5's names in memory -> in files
    (r"^layers\.", "encoder.layer."),
    (r"\.attention\.([qkv])_proj\.", lambda m: f".attention.attention.{dict(q='query', k='key', v='value')[m[1]]}."),
    (r"\.attention\.o_proj\.", ".attention.output.dense."),
    (r"^(encoder\.layer\.\d+)\.mlp\.fc1\.", r"\1.intermediate.dense."),
    (r"^(encoder\.layer\.\d+)\.mlp\.fc2\.", r"\1.output.dense."),
)


def strip_prefix(name: str) -> str:
    """Return an array's name without the prefix that a class with a head puts before its tower."""
    return re.sub(r"^(vit|deit|ijepa|dinov2_with_registers|dinov2|vision_model)\.", "", name)


def _rename_vit_key(name: str) -> str:
    name = strip_prefix(name)
    for pattern, new in IN_MEMORY:
        name = re.sub(pattern, new, name)
    return name


EMBEDDINGS = (
    Rule("embeddings.cls_token", "class_token"),
    Rule("embeddings.distillation_token", "distillation_token"),
    Rule("embeddings.register_tokens", "registers"),
    Rule("embeddings.position_embeddings", "position_embedding"),
    Rule("embeddings.patch_embeddings.projection.weight", "patch_embed.kernel", CONV),
    Rule("embeddings.patch_embeddings.projection.bias", "patch_embed.bias"),
)
ATTENTION = (
    *fused_qkv([f"{ENCODER}attention.attention.{part}" for part in ("query", "key", "value")], "blocks.{i}.attn.qkv"),
    *dense(ENCODER + "attention.output.dense", "blocks.{i}.attn.out"),
)


def has_teacher_head(config: ViTConfig) -> bool:
    """Return whether the model is a DeiT with the teacher's head."""
    return config.distillation_head


VIT_RULES = (
    *EMBEDDINGS,
    *ATTENTION,
    *norm(ENCODER + "layernorm_before", "blocks.{i}.norm1"),
    *norm(ENCODER + "layernorm_after", "blocks.{i}.norm2"),
    *dense(ENCODER + "intermediate.dense", "blocks.{i}.mlp.up"),
    *dense(ENCODER + "output.dense", "blocks.{i}.mlp.down"),
    *norm("layernorm", "norm"),
    *dense("pooler.dense", "representation"),
    *dense("classifier", "head", when=lambda config: not has_teacher_head(config)),
    *dense("cls_classifier", "head", when=has_teacher_head),
    *dense("distillation_classifier", "distillation_head"),
)


def infer_embeddings(shapes: Shapes, image_size: tuple[int, int] | None, num_prefix: int) -> dict:
    """Return the fields of ViTConfig that ViT and DINOv2 share. num_prefix: positions before the patches."""
    width, channels, ph, pw = shapes["embeddings.patch_embeddings.projection.weight"]
    rows, columns = infer_grid(shapes["embeddings.position_embeddings"][1] - num_prefix, (ph, pw), image_size)
    return dict(
        image_size=(rows * ph, columns * pw),
        patch_size=(ph, pw),
        width=width,
        in_channels=channels,
        depth=count_layers(shapes, ENCODER),
        qkv_bias="encoder.layer.0.attention.attention.query.bias" in shapes,
        posemb_resize="bicubic",
    )


def infer_vit_architecture(shapes: Shapes, image_size: tuple[int, int] | None) -> dict:
    """Return the fields of ViTConfig except num_heads. eps defaults to 1e-12, the activation to exact GELU."""
    has_class = "embeddings.cls_token" in shapes
    distilled = "embeddings.distillation_token" in shapes
    head = "cls_classifier.weight" if "cls_classifier.weight" in shapes else "classifier.weight"
    classes = count_rows(shapes, head)
    return infer_embeddings(shapes, image_size, int(has_class) + int(distilled)) | dict(
        mlp_dim=shapes["encoder.layer.0.intermediate.dense.weight"][0],
        num_classes=classes,
        class_token=has_class,
        class_position=has_class,
        distillation_token=distilled,
        distillation_head=count_rows(shapes, "distillation_classifier.weight") > 0,
        pooling="cls" if has_class else "gap",
        representation=0 if classes or not has_class else count_rows(shapes, "pooler.dense.weight"),
        norm_eps=1e-12,
    )


def _export_vit_key(name: str, config: ViTConfig) -> str:
    if not config.num_classes or "classifier" in name:
        return name
    return ("deit." if config.distillation_token else "vit." if config.class_token else "ijepa.") + name


def infer_vit_preprocess(shapes: Shapes) -> Preprocess:
    """Return Google's preprocess, but ImageNet's for DeiT, MAE and I-JEPA, as far as keys show them."""
    if "embeddings.distillation_token" in shapes:
        return DEIT_HF
    is_google = "embeddings.cls_token" in shapes and "decoder.decoder_embed.weight" not in shapes
    return GOOGLE if is_google else SQUASH_HF


VIT = Layout(
    name="hf_vit",
    title="Hugging Face ViT, DeiT, MAE and I-JEPA",
    rules=VIT_RULES,
    infer_architecture=infer_vit_architecture,
    signature_keys=(
        "embeddings.position_embeddings",
        "encoder.layer.0.attention.attention.query.weight",
        "encoder.layer.0.layernorm_before.weight",
        "encoder.layer.0.intermediate.dense.weight",
        "layernorm.weight",
    ),
    unused=(r"embeddings\.mask_token", r"pooler\.dense\..*", r"decoder\..*"),
    rename_key=_rename_vit_key,
    export_key=_export_vit_key,
    sidecar_family="hf",
    preprocess=infer_vit_preprocess,
)
