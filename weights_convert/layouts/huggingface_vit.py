"""Hugging Face ViT, DeiT and DINOv2 as save_pretrained writes them.

A class with a head stores its tower under a prefix (vit., deit., dinov2.), a bare tower has none; the rules here have
none. transformers 5 uses other names in memory than in files: both are read, except for SwiGLU in memory.
"""

import re

from vit_jax import ViTConfig
from weights_convert.layouts.layout import Layout, Shapes, count_layers, infer_grid
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
    return re.sub(r"^(vit|deit|dinov2_with_registers|dinov2|vision_model)\.", "", name)


def _rename_vit_key(name: str) -> str:
    name = strip_prefix(name)
    for pattern, new in IN_MEMORY:
        name = re.sub(pattern, new, name)
    return name


def _rename_dinov2_key(name: str) -> str:
    name = strip_prefix(name)
    for pattern, new in IN_MEMORY[1:3]:
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


def _infer_embeddings(shapes: Shapes, image_size: tuple[int, int] | None, num_prefix: int) -> dict:
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
    distilled = "embeddings.distillation_token" in shapes
    head = "cls_classifier.weight" if "cls_classifier.weight" in shapes else "classifier.weight"
    classes = shapes[head][0] if head in shapes else 0
    return _infer_embeddings(shapes, image_size, 1 + int(distilled)) | dict(
        mlp_dim=shapes["encoder.layer.0.intermediate.dense.weight"][0],
        num_classes=classes,
        distillation_token=distilled,
        distillation_head="distillation_classifier.weight" in shapes,
        representation=0 if classes or "pooler.dense.weight" not in shapes else shapes["pooler.dense.weight"][0],
        norm_eps=1e-12,
    )


def _export_vit_key(name: str, config: ViTConfig) -> str:
    if not config.num_classes or "classifier" in name:
        return name
    return ("deit." if config.distillation_token else "vit.") + name


VIT = Layout(
    name="hf_vit",
    title="Hugging Face ViT and DeiT",
    rules=VIT_RULES,
    infer_architecture=infer_vit_architecture,
    signature_keys=(
        "embeddings.cls_token",
        "embeddings.position_embeddings",
        "encoder.layer.0.attention.attention.query.weight",
        "encoder.layer.0.layernorm_before.weight",
        "encoder.layer.0.intermediate.dense.weight",
        "layernorm.weight",
    ),
    unused=(r"embeddings\.mask_token", r"pooler\.dense\.(weight|bias)"),
    rename_key=_rename_vit_key,
    export_key=_export_vit_key,
)

DINOV2_RULES = (
    *EMBEDDINGS,
    *ATTENTION,
    *norm(ENCODER + "norm1", "blocks.{i}.norm1"),
    Rule(ENCODER + "layer_scale1.lambda1", "blocks.{i}.scale1"),
    *norm(ENCODER + "norm2", "blocks.{i}.norm2"),
    *dense(ENCODER + "mlp.fc1", "blocks.{i}.mlp.up", when=lambda config: config.activation != "swiglu"),
    *dense(ENCODER + "mlp.fc2", "blocks.{i}.mlp.down", when=lambda config: config.activation != "swiglu"),
    *dense(ENCODER + "mlp.weights_in", "blocks.{i}.mlp.up", when=lambda config: config.activation == "swiglu"),
    *dense(ENCODER + "mlp.weights_out", "blocks.{i}.mlp.down", when=lambda config: config.activation == "swiglu"),
    Rule(ENCODER + "layer_scale2.lambda1", "blocks.{i}.scale2"),
    *norm("layernorm", "norm"),
    *dense("classifier", "head"),
)


def infer_dinov2_architecture(shapes: Shapes, image_size: tuple[int, int] | None) -> dict:
    """Return the fields of ViTConfig except num_heads. A classifier reads [class] and the mean of the patches."""
    gated = "encoder.layer.0.mlp.weights_in.weight" in shapes
    down = shapes[f"encoder.layer.0.mlp.{'weights_out' if gated else 'fc2'}.weight"]
    classes = shapes["classifier.weight"][0] if "classifier.weight" in shapes else 0
    return _infer_embeddings(shapes, image_size, 1) | dict(
        mlp_dim=down[1],
        num_classes=classes,
        num_registers=shapes["embeddings.register_tokens"][1] if "embeddings.register_tokens" in shapes else 0,
        pooling="cls_gap" if classes else "cls",
        layer_scale=True,
        activation="swiglu" if gated else "gelu",
        norm_eps=1e-6,
    )


def _export_dinov2_key(name: str, config: ViTConfig) -> str:
    if not config.num_classes or "classifier" in name:
        return name
    return ("dinov2_with_registers." if config.num_registers else "dinov2.") + name


DINOV2 = Layout(
    name="hf_dinov2",
    title="Hugging Face DINOv2, with and without registers",
    rules=DINOV2_RULES,
    infer_architecture=infer_dinov2_architecture,
    signature_keys=(
        "embeddings.cls_token",
        "embeddings.position_embeddings",
        "encoder.layer.0.attention.attention.query.weight",
        "encoder.layer.0.norm1.weight",
        "encoder.layer.0.layer_scale1.lambda1",
        "layernorm.weight",
    ),
    unused=(r"embeddings\.mask_token",),
    rename_key=_rename_dinov2_key,
    export_key=_export_dinov2_key,
)
