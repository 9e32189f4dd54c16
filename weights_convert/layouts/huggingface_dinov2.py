"""Hugging Face DINOv2, with and without registers, as save_pretrained writes it. See huggingface_vit.py.

transformers 5's names in memory are read too, except for those of a DINOv2's SwiGLU; TIPSv2's are the same, while it
writes those of its authors to files: see dinov2.py.
"""

import re

from vit_jax import ViTConfig
from vit_jax.preprocess import Preprocess
from weights_convert.layouts import dinov2
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
from weights_convert.layouts.preprocessing import IMAGENET_HF, TIPSV2
from weights_convert.rules import FUSED_GATE, FUSED_GATE_BIAS, Rule, dense, norm

RESIZE = {0: "bicubic", 1: dinov2.TIPSV2_RESIZE}  # by the number of registers; otherwise with antialiasing


def is_tipsv2(config: ViTConfig) -> bool:
    """Return whether a model is a TIPSv2, by how it resizes positions."""
    return config.posemb_resize == dinov2.TIPSV2_RESIZE


def has_gate(config: ViTConfig) -> bool:
    """Return whether the MLP is DINOv2's SwiGLU."""
    return config.activation == "swiglu" and not is_tipsv2(config)


def has_separate_gate(config: ViTConfig) -> bool:
    """Return whether the MLP is TIPSv2's SwiGLU, whose gate and value are separate layers in memory."""
    return config.activation == "swiglu" and is_tipsv2(config)


def _gate(kind: str) -> tuple[str, ...]:
    return f"{ENCODER}mlp.gate_proj.{kind}", f"{ENCODER}mlp.up_proj.{kind}"


RULES = (
    *EMBEDDINGS,
    *ATTENTION,
    *norm(ENCODER + "norm1", "blocks.{i}.norm1"),
    Rule(ENCODER + "layer_scale1.lambda1", "blocks.{i}.scale1"),
    *norm(ENCODER + "norm2", "blocks.{i}.norm2"),
    *dense(ENCODER + "mlp.fc1", "blocks.{i}.mlp.up", when=lambda config: config.activation != "swiglu"),
    *dense(ENCODER + "mlp.fc2", "blocks.{i}.mlp.down", when=lambda config: config.activation != "swiglu"),
    *dense(ENCODER + "mlp.weights_in", "blocks.{i}.mlp.up", when=has_gate),
    *dense(ENCODER + "mlp.weights_out", "blocks.{i}.mlp.down", when=has_gate),
    Rule(ENCODER + "layer_scale2.lambda1", "blocks.{i}.scale2"),
    *norm("layernorm", "norm"),
    *dense("classifier", "head"),
)
TIPSV2_RULES = (
    Rule(_gate("weight"), "blocks.{i}.mlp.up.kernel", FUSED_GATE, when=has_separate_gate),
    Rule(_gate("bias"), "blocks.{i}.mlp.up.bias", FUSED_GATE_BIAS, when=has_separate_gate),
    *dense(ENCODER + "mlp.down_proj", "blocks.{i}.mlp.down", when=has_separate_gate),
)


def rename_key(name: str) -> str:
    """Return an array's name in a file, without the prefix of its tower."""
    name = strip_prefix(name)
    for pattern, new in IN_MEMORY[1:3]:
        name = re.sub(pattern, new, name)
    return name


def infer_architecture(shapes: Shapes, image_size: tuple[int, int] | None) -> dict:
    """Return the fields of ViTConfig except num_heads. A classifier reads [class] and the mean of the patches.

    transformers resizes the positions of the model with registers with antialiasing, those of the other without. A
    model with one register is a TIPSv2.
    """
    mlp = "encoder.layer.0.mlp."
    down = next((name for name in ("weights_out", "down_proj") if f"{mlp}{name}.weight" in shapes), "fc2")
    classes = count_rows(shapes, "classifier.weight")
    registers = shapes["embeddings.register_tokens"][1] if "embeddings.register_tokens" in shapes else 0
    return infer_embeddings(shapes, image_size, 1) | dict(
        mlp_dim=shapes[f"{mlp}{down}.weight"][1],
        num_classes=classes,
        num_registers=registers,
        posemb_resize=RESIZE.get(registers, "bicubic_antialias"),
        pooling="cls_gap" if classes else "cls",
        layer_scale=True,
        activation="gelu" if down == "fc2" else "swiglu",
        norm_eps=1e-6,
    )


def infer_preprocess(shapes: Shapes) -> Preprocess:
    """Return the preprocess of TIPSv2 or of DINOv2."""
    return TIPSV2 if shapes.get("embeddings.register_tokens", (0, 0))[1] == 1 else IMAGENET_HF


def export_key(name: str, config: ViTConfig) -> str:
    """Return the name that a class with or without a head loads."""
    if not config.num_classes or "classifier" in name:
        return name
    return ("dinov2_with_registers." if config.num_registers else "dinov2.") + name


LAYOUT = Layout(
    name="hf_dinov2",
    title="Hugging Face DINOv2, with and without registers; TIPSv2 in memory",
    rules=(*RULES, *TIPSV2_RULES),
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
    preprocess=infer_preprocess,
)
