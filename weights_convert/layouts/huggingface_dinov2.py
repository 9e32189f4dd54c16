"""Hugging Face DINOv2, with and without registers, as save_pretrained writes it. See huggingface_vit.py.

transformers 5's names in memory are read too, except for those of a SwiGLU.
"""

import re

from vit_jax import ViTConfig
from weights_convert.layouts.huggingface_vit import (
    ATTENTION,
    EMBEDDINGS,
    ENCODER,
    IN_MEMORY,
    infer_embeddings,
    strip_prefix,
)
from weights_convert.layouts.inference import Shapes, count_rows
from weights_convert.layouts.layout import Layout
from weights_convert.layouts.preprocessing import IMAGENET_HF, always
from weights_convert.rules import Rule, dense, norm

RULES = (
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


def rename_key(name: str) -> str:
    """Return an array's name in a file, without the prefix of its tower."""
    name = strip_prefix(name)
    for pattern, new in IN_MEMORY[1:3]:
        name = re.sub(pattern, new, name)
    return name


def infer_architecture(shapes: Shapes, image_size: tuple[int, int] | None) -> dict:
    """Return the fields of ViTConfig except num_heads. A classifier reads [class] and the mean of the patches.

    transformers resizes the positions of the model with registers with antialiasing, those of the other without.
    """
    gated = "encoder.layer.0.mlp.weights_in.weight" in shapes
    down = shapes[f"encoder.layer.0.mlp.{'weights_out' if gated else 'fc2'}.weight"]
    classes = count_rows(shapes, "classifier.weight")
    has_registers = "embeddings.register_tokens" in shapes
    return infer_embeddings(shapes, image_size, 1) | dict(
        mlp_dim=down[1],
        num_classes=classes,
        num_registers=shapes["embeddings.register_tokens"][1] if has_registers else 0,
        posemb_resize="bicubic_antialias" if has_registers else "bicubic",
        pooling="cls_gap" if classes else "cls",
        layer_scale=True,
        activation="swiglu" if gated else "gelu",
        norm_eps=1e-6,
    )


def export_key(name: str, config: ViTConfig) -> str:
    """Return the name that a class with or without a head loads."""
    if not config.num_classes or "classifier" in name:
        return name
    return ("dinov2_with_registers." if config.num_registers else "dinov2.") + name


LAYOUT = Layout(
    name="hf_dinov2",
    title="Hugging Face DINOv2, with and without registers",
    rules=RULES,
    infer_architecture=infer_architecture,
    signature_keys=(
        "embeddings.cls_token",
        "embeddings.position_embeddings",
        "encoder.layer.0.attention.attention.query.weight",
        "encoder.layer.0.norm1.weight",
        "encoder.layer.0.layer_scale1.lambda1",
        "layernorm.weight",
    ),
    unused=(r"embeddings\.mask_token",),
    rename_key=rename_key,
    export_key=export_key,
    sidecar_family="hf",
    preprocess=always(IMAGENET_HF),
)
