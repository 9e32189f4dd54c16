"""AIMv2 (https://arxiv.org/abs/2411.14402) as transformers and timm have it: RMSNorm, SwiGLU, no biases in the blocks.

Its patches are normed before positions are added. transformers pools by attention whose query is learned as it is, or
gives no pooled output ("use_head": false), which is read as the mean of the patches; timm takes that mean too. The
projection of a model with a text tower becomes the head. The models of native resolution compute their positions, which
is not supported.
"""

from typing import Any

from vit_jax import InputError, ViTConfig
from weights_convert.layouts.inference import Shapes, count_layers, count_rows, infer_grid
from weights_convert.layouts.layout import Layout
from weights_convert.layouts.preprocessing import CLIP, CLIP_HF, always
from weights_convert.layouts.unsupported import AIMV2_NATIVE
from weights_convert.rules import (
    CONV,
    FUSED_GATE,
    FUSED_GATE_BIAS,
    LINEAR,
    TABLE,
    Rule,
    dense,
    fuse_bias,
    fuse_linear,
    fused_qkv,
)

HEAD_SIZE = 128  # of every published AIMv2
WIDTHS = (1024, 1536, 2048, 3072)
LAYER, BLOCK = "encoder.layers.{i}.", "blocks.{i}."


def fused_gate(gate: str, value: str) -> tuple[Rule, Rule]:
    """Return the rules for the separate layers of a SwiGLU's gate and value."""
    return (
        Rule((f"{gate}.weight", f"{value}.weight"), "blocks.{i}.mlp.up.kernel", FUSED_GATE),
        Rule((f"{gate}.bias", f"{value}.bias"), "blocks.{i}.mlp.up.bias", FUSED_GATE_BIAS),
    )


def _infer_shared(width: int, rows: int, columns: int, patch: tuple[int, int]) -> dict[str, Any]:
    """Return the fields of ViTConfig that every AIMv2 has, and the number of heads of a published width."""
    heads = {"num_heads": width // HEAD_SIZE} if width in WIDTHS else {}
    return heads | dict(
        image_size=(rows * patch[0], columns * patch[1]),
        patch_size=patch,
        width=width,
        class_token=False,
        class_position=False,
        activation="swiglu",
        norm="rms",
        embed_norm=True,
        norm_eps=1e-5,
    )


def infer_architecture(shapes: Shapes, image_size: tuple[int, int] | None) -> dict:
    """Return the fields of ViTConfig, num_heads of a published width alone.

    Raises InputError for a model of native resolution, which has no position table.
    """
    width, channels, ph, pw = shapes["embeddings.patch_embed.weight"]
    if "embeddings.position_embedding.weight" not in shapes:
        raise InputError(AIMV2_NATIVE)
    rows, columns = infer_grid(shapes["embeddings.position_embedding.weight"][0], (ph, pw), image_size)
    first = "encoder.layers.0."
    has_head, projection = "head.cls_token" in shapes, count_rows(shapes, "visual_projection.weight")
    return _infer_shared(width, rows, columns, (ph, pw)) | dict(
        depth=count_layers(shapes, LAYER),
        mlp_dim=shapes[first + "ffn.down_proj.weight"][1],
        num_classes=projection,
        head_bias=not projection,
        in_channels=channels,
        pooling="map" if has_head else "gap",
        plain_pool=has_head,
        qkv_bias=first + "attention.q_proj.bias" in shapes,
        out_bias=first + "attention.out_proj.bias" in shapes,
        mlp_bias=first + "ffn.down_proj.bias" in shapes,
        posemb_resize="bicubic",
    )


def infer_timm(shapes: Shapes, image_size: tuple[int, int] | None) -> dict:
    """Return the fields of ViTConfig, num_heads of a published width alone."""
    width, channels, ph, pw = shapes["patch_embed.proj.weight"]
    rows, columns = infer_grid(shapes["pos_embed"][1], (ph, pw), image_size)
    return _infer_shared(width, rows, columns, (ph, pw)) | dict(
        depth=count_layers(shapes, BLOCK),
        mlp_dim=shapes["blocks.0.mlp.fc2.weight"][1],
        num_classes=count_rows(shapes, "head.weight"),
        in_channels=channels,
        pooling="gap",
        qkv_bias="blocks.0.attn.qkv.bias" in shapes,
        out_bias="blocks.0.attn.proj.bias" in shapes,
        mlp_bias="blocks.0.mlp.fc2.bias" in shapes,
        posemb_resize="bicubic_antialias",
    )


def _export_key(name: str, config: ViTConfig) -> str:
    return "vision_model." + name if config.num_classes and not name.startswith("visual_projection") else name


HUGGING_FACE = Layout(
    name="hf_aimv2",
    title="Hugging Face AIMv2, image tower",
    rules=(
        Rule("embeddings.patch_embed.weight", "patch_embed.kernel", CONV),
        Rule("embeddings.patch_embed.bias", "patch_embed.bias"),
        Rule("embeddings.rms_norm.weight", "patch_embed.norm_tokens.scale"),
        Rule("embeddings.position_embedding.weight", "position_embedding", TABLE),
        Rule(LAYER + "rms_norm1.weight", "blocks.{i}.norm1.scale"),
        *fused_qkv([f"{LAYER}attention.{part}_proj" for part in "qkv"], "blocks.{i}.attn.qkv"),
        *dense(LAYER + "attention.out_proj", "blocks.{i}.attn.out"),
        Rule(LAYER + "rms_norm2.weight", "blocks.{i}.norm2.scale"),
        *fused_gate(LAYER + "ffn.gate_proj", LAYER + "ffn.up_proj"),
        *dense(LAYER + "ffn.down_proj", "blocks.{i}.mlp.down"),
        Rule("rms_norm.weight", "norm.scale"),
        Rule("head.cls_token", "pool.probe"),
        Rule(("head.k_proj.weight", "head.v_proj.weight"), "pool.qkv_kernel", fuse_linear(2)),
        Rule(("head.k_proj.bias", "head.v_proj.bias"), "pool.qkv_bias", fuse_bias(2)),
        *dense("head.output_proj", "pool.out"),
        Rule("visual_projection.weight", "head.kernel", LINEAR),
    ),
    infer_architecture=infer_architecture,
    signature_keys=(
        "embeddings.patch_embed.weight",
        "embeddings.rms_norm.weight",
        "encoder.layers.0.attention.q_proj.weight",
        "encoder.layers.0.ffn.gate_proj.weight",
        "rms_norm.weight",
    ),
    unused=(r"text_model\..*", r"text_projection\..*", r"logit_scale"),
    export_key=_export_key,
    sidecar_family="hf",
    preprocess=always(CLIP_HF),
)
TIMM = Layout(
    name="timm_aimv2",
    title="timm AIMv2",
    rules=(
        Rule("pos_embed", "position_embedding"),
        Rule("patch_embed.proj.weight", "patch_embed.kernel", CONV),
        Rule("patch_embed.proj.bias", "patch_embed.bias"),
        Rule("patch_embed.norm.weight", "patch_embed.norm_tokens.scale"),
        Rule(BLOCK + "norm1.weight", "blocks.{i}.norm1.scale"),
        *dense(BLOCK + "attn.qkv", "blocks.{i}.attn.qkv"),
        *dense(BLOCK + "attn.proj", "blocks.{i}.attn.out"),
        Rule(BLOCK + "norm2.weight", "blocks.{i}.norm2.scale"),
        *fused_gate(BLOCK + "mlp.fc1_g", BLOCK + "mlp.fc1_x"),
        *dense(BLOCK + "mlp.fc2", "blocks.{i}.mlp.down"),
        Rule("norm.weight", "norm.scale"),
        *dense("head", "head"),
    ),
    infer_architecture=infer_timm,
    signature_keys=(
        "pos_embed",
        "patch_embed.proj.weight",
        "patch_embed.norm.weight",
        "blocks.0.attn.qkv.weight",
        "blocks.0.mlp.fc1_g.weight",
    ),
    sidecar_family="timm",
    preprocess=always(CLIP),
)
