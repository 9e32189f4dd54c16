"""Hugging Face DINOv3 ViT as save_pretrained writes it; transformers 5's names in memory are read too.

It recomputes the periods of the rotation, in float32; here they are recomputed in float64. Pooled by [class].
"""

import re

from vit_jax import ViTConfig
from weights_convert.layouts import rotary
from weights_convert.layouts.inference import Shapes, count_layers
from weights_convert.layouts.layout import Layout
from weights_convert.layouts.preprocessing import SQUASH_HF, always
from weights_convert.rules import (
    CONV,
    FUSED_BIAS,
    FUSED_GATE,
    FUSED_GATE_BIAS,
    FUSED_LINEAR,
    FUSED_QV_BIAS,
    Rule,
    dense,
    norm,
)

LAYER, ATTENTION, MLP = "layer.{i}.", "layer.{i}.attention.", "layer.{i}.mlp."
SIZE = (224, 224)


def is_gated(config: ViTConfig) -> bool:
    """Return whether the MLP is a SwiGLU."""
    return config.activation == "swiglu"


def _qkv(kind: str, parts: str = "qkv") -> tuple[str, ...]:
    return tuple(f"{ATTENTION}{part}_proj.{kind}" for part in parts)


RULES = (
    Rule("embeddings.cls_token", "class_token"),
    Rule("embeddings.register_tokens", "registers"),
    Rule("embeddings.patch_embeddings.weight", "patch_embed.kernel", CONV),
    Rule("embeddings.patch_embeddings.bias", "patch_embed.bias"),
    *norm(LAYER + "norm1", "blocks.{i}.norm1"),
    Rule(_qkv("weight"), "blocks.{i}.attn.qkv.kernel", FUSED_LINEAR),
    Rule(_qkv("bias"), "blocks.{i}.attn.qkv.bias", FUSED_BIAS, when=lambda config: config.key_bias),
    Rule(_qkv("bias", "qv"), "blocks.{i}.attn.qkv.bias", FUSED_QV_BIAS, when=lambda config: not config.key_bias),
    *dense(ATTENTION + "o_proj", "blocks.{i}.attn.out"),
    Rule(LAYER + "layer_scale1.lambda1", "blocks.{i}.scale1"),
    *norm(LAYER + "norm2", "blocks.{i}.norm2"),
    *dense(MLP + "up_proj", "blocks.{i}.mlp.up", when=lambda config: not is_gated(config)),
    Rule((MLP + "gate_proj.weight", MLP + "up_proj.weight"), "blocks.{i}.mlp.up.kernel", FUSED_GATE, when=is_gated),
    Rule((MLP + "gate_proj.bias", MLP + "up_proj.bias"), "blocks.{i}.mlp.up.bias", FUSED_GATE_BIAS, when=is_gated),
    *dense(MLP + "down_proj", "blocks.{i}.mlp.down"),
    Rule(LAYER + "layer_scale2.lambda1", "blocks.{i}.scale2"),
    *norm("norm", "norm"),
)


def rename_key(name: str) -> str:
    """Return an array's name in a file."""
    return re.sub(r"^model\.layer\.", "layer.", name)


def infer_architecture(shapes: Shapes, image_size: tuple[int, int] | None) -> dict:
    """Return the fields of ViTConfig. The image size is no property of the arrays; the config's default is 224."""
    width, channels, ph, pw = shapes["embeddings.patch_embeddings.weight"]
    registers = "embeddings.register_tokens"
    return dict(
        image_size=image_size or SIZE,
        patch_size=(ph, pw),
        width=width,
        depth=count_layers(shapes, LAYER),
        mlp_dim=shapes["layer.0.mlp.down_proj.weight"][1],
        num_classes=0,
        in_channels=channels,
        num_registers=shapes[registers][1] if registers in shapes else 0,
        position_table=False,
        rotary=rotary.DINOV3,
        pooling="cls",
        layer_scale=True,
        activation="swiglu" if "layer.0.mlp.gate_proj.weight" in shapes else "gelu",
        qkv_bias="layer.0.attention.q_proj.bias" in shapes,
        key_bias="layer.0.attention.k_proj.bias" in shapes or "layer.0.attention.q_proj.bias" not in shapes,
        out_bias="layer.0.attention.o_proj.bias" in shapes,
        norm_eps=1e-5,
        **rotary.dinov3_heads(width),
    )


LAYOUT = Layout(
    name="hf_dinov3",
    title="Hugging Face DINOv3 ViT",
    rules=RULES,
    infer_architecture=infer_architecture,
    signature_keys=(
        "embeddings.cls_token",
        "embeddings.patch_embeddings.weight",
        "layer.0.attention.q_proj.weight",
        "layer.0.layer_scale1.lambda1",
        "norm.weight",
    ),
    unused=(r"embeddings\.mask_token",),
    rename_key=rename_key,
    sidecar_family="hf",
    preprocess=always(SQUASH_HF),
    assumes=("rotary",),
)
