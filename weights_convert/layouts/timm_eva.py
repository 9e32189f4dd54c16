"""timm's Eva class (https://github.com/huggingface/pytorch-image-models, models/eva.py, 1.0.31) and its Beit class.

Eva: DINOv3 and EUPE, EVA and EVA-02 (also CLIP's), Perception Encoder, ViTs with axial rotary positions. Beit: BEiT and
BEiTv2, whose authors' files have the same names. Their blocks hold gamma_1 and gamma_2 for the layer scale, and the
biases of q and v without one of k. timm pools DINOv3 by the mean of the patches, its authors by [class].

Base and large EVA-02 have separate layers for q, k and v and a norm within the MLP; a SwiGLU is one layer in tiny and
small EVA-02, else two.
"""

from dataclasses import replace

import numpy as np

from vit_jax import InputError, ViTConfig
from vit_jax.position import relative_position_index
from vit_jax.preprocess import Preprocess
from weights_convert.layouts import rotary, timm
from weights_convert.layouts.inference import Shapes, count_layers, count_rows, infer_distances, infer_positions
from weights_convert.layouts.layout import Layout
from weights_convert.layouts.preprocessing import CLIP, IMAGENET
from weights_convert.rules import (
    FUSED_GATE,
    FUSED_GATE_BIAS,
    FUSED_LINEAR,
    FUSED_QV_BIAS,
    LINEAR,
    Rule,
    dense,
    norm,
)

BLOCK = timm.BLOCK
SIZE_OF_DINOV3 = (256, 256)
ENORMOUS = 1792
BIAS_TABLE, SHARED_TABLE = "attn.relative_position_bias_table", "rel_pos_bias.relative_position_bias_table"


def has_separate_qkv(config: ViTConfig) -> bool:
    """Return whether q, k and v are separate layers: in EVA-02's base and large models."""
    return config.mlp_norm


def has_separate_gate(config: ViTConfig) -> bool:
    """Return whether a SwiGLU's gate and value are separate layers: DINOv3's, and EVA-02's with a norm."""
    return config.activation == "swiglu" and (config.mlp_norm or not config.position_table)


def has_fused_qv_bias(config: ViTConfig) -> bool:
    """Return whether the biases of q and v are next to one layer of q, k and v."""
    return not config.key_bias and not has_separate_qkv(config)


def _parts(name: str, kind: str, parts: str = "qkv") -> tuple[str, ...]:
    return tuple(f"{BLOCK}attn.{name.format(part)}{kind}" for part in parts)


OWN_NAMES = ("blocks.{i}.attn.qkv.", "blocks.{i}.scale", "blocks.{i}.mlp.up.")
RULES = (
    *(rule for rule in timm.RULES if not rule.target.startswith(OWN_NAMES)),
    Rule(BLOCK + "attn.qkv.weight", "blocks.{i}.attn.qkv.kernel", LINEAR, when=lambda c: not has_separate_qkv(c)),
    Rule(BLOCK + "attn.qkv.bias", "blocks.{i}.attn.qkv.bias", when=lambda c: c.key_bias and not has_separate_qkv(c)),
    Rule(_parts("{}_bias", "", "qv"), "blocks.{i}.attn.qkv.bias", FUSED_QV_BIAS, when=has_fused_qv_bias),
    Rule(_parts("{}_proj", ".weight"), "blocks.{i}.attn.qkv.kernel", FUSED_LINEAR, when=has_separate_qkv),
    Rule(_parts("{}_proj", ".bias", "qv"), "blocks.{i}.attn.qkv.bias", FUSED_QV_BIAS, when=has_separate_qkv),
    *norm(BLOCK + "attn.norm", "blocks.{i}.attn.norm"),
    Rule(BLOCK + BIAS_TABLE, "blocks.{i}.relative_bias"),
    Rule(SHARED_TABLE, "relative_bias"),
    Rule(BLOCK + "gamma_1", "blocks.{i}.scale1"),
    Rule(BLOCK + "gamma_2", "blocks.{i}.scale2"),
    *dense(BLOCK + "mlp.fc1", "blocks.{i}.mlp.up", when=lambda c: not has_separate_gate(c)),
    Rule(
        (BLOCK + "mlp.fc1_g.weight", BLOCK + "mlp.fc1_x.weight"),
        "blocks.{i}.mlp.up.kernel",
        FUSED_GATE,
        when=has_separate_gate,
    ),
    Rule(
        (BLOCK + "mlp.fc1_g.bias", BLOCK + "mlp.fc1_x.bias"),
        "blocks.{i}.mlp.up.bias",
        FUSED_GATE_BIAS,
        when=has_separate_gate,
    ),
    *norm(BLOCK + "mlp.norm", "blocks.{i}.mlp.norm"),
)


def _infer_blocks(shapes: Shapes) -> dict:
    """Return the fields of ViTConfig that the blocks show."""
    first = "blocks.0."
    mlp_dim = shapes[first + "mlp.fc2.weight"][1]
    gated = first + "mlp.fc1_g.weight" in shapes or shapes[first + "mlp.fc1.weight"][0] == 2 * mlp_dim
    biases = [f"{first}attn.{name}" for name in ("qkv.bias", "q_bias", "q_proj.bias")]
    return dict(
        depth=count_layers(shapes, BLOCK),
        mlp_dim=mlp_dim,
        activation="swiglu" if gated else "gelu",
        qkv_bias=any(name in shapes for name in biases),
        key_bias=not any(name in shapes for name in biases[1:]),
        layer_scale=first + "gamma_1" in shapes,
        attention_norm=first + "attn.norm.weight" in shapes,
        mlp_norm=first + "mlp.norm.weight" in shapes,
    )


def _infer_stem(shapes: Shapes) -> dict:
    """Return the fields of ViTConfig that the other arrays show, apart from positions and pooling."""
    width, channels, ph, pw = shapes["patch_embed.proj.weight"]
    return dict(
        patch_size=(ph, pw),
        width=width,
        in_channels=channels,
        num_classes=count_rows(shapes, "head.weight"),
        class_token="cls_token" in shapes,
        num_registers=shapes["reg_token"][1] if "reg_token" in shapes else 0,
        final_norm="pooled" if "fc_norm.weight" in shapes else "tokens" if "norm.weight" in shapes else "none",
        pre_norm="norm_pre.weight" in shapes,
        patch_bias="patch_embed.proj.bias" in shapes,
        head_bias="head.bias" in shapes or "head.weight" not in shapes,
        norm_eps=1e-6,
        posemb_resize="bicubic_antialias",
    )


def infer_architecture(shapes: Shapes, image_size: tuple[int, int] | None) -> dict:
    """Return the fields of ViTConfig except num_heads, but DINOv3's.

    Raises InputError for learned rotary frequencies, and for EVA-02's enormous CLIP, whose norms follow the branches.
    """
    if "rope.freqs" in shapes:
        raise InputError(rotary.MIXED)
    fields = _infer_stem(shapes) | _infer_blocks(shapes)
    if fields["width"] == ENORMOUS:
        raise InputError("EVA-02's enormous CLIP, whose norms follow each branch, which is not supported")
    has_table, has_class, (ph, pw) = "pos_embed" in shapes, fields["class_token"], fields["patch_size"]
    is_dinov3 = not has_table and has_class and fields["num_registers"] > 0
    size = image_size or (SIZE_OF_DINOV3 if is_dinov3 or not has_class else (224, 224))
    if has_table:
        grid, in_table = infer_positions(shapes["pos_embed"][1], int(has_class), (ph, pw), image_size)
        size, fields["class_position"] = (grid[0] * ph, grid[1] * pw), in_table
    is_eva = has_table and fields["qkv_bias"] and not fields["key_bias"]
    if is_dinov3:
        fields |= dict(rotary=rotary.DINOV3, norm_eps=1e-5, **rotary.dinov3_heads(fields["width"]))
    elif is_eva:
        fields |= dict(rotary=rotary.EVA if fields["activation"] == "swiglu" else None)  # the first EVA has none
    else:
        fields |= dict(rotary=rotary.ROPE_VIT if has_class else rotary.EVA)
    is_mean = fields["final_norm"] == "pooled" or is_dinov3 or not has_class
    return fields | dict(image_size=size, position_table=has_table, pooling="gap" if is_mean else "cls")


def infer_perception(shapes: Shapes, image_size: tuple[int, int] | None) -> dict:
    """Return the fields of ViTConfig except num_heads, of a Perception Encoder."""
    fields = _infer_stem(shapes) | _infer_blocks(shapes)
    ph, pw = fields["patch_size"]
    grid, in_table = infer_positions(shapes["pos_embed"][1], int(fields["class_token"]), (ph, pw), image_size)
    is_core = "attn_pool.latent" in shapes
    return fields | dict(
        image_size=(grid[0] * ph, grid[1] * pw),
        class_position=in_table,
        rotary=rotary.perception(grid),
        pooling="map_all" if is_core else "gap",
        pool_heads=8 if is_core else 0,
        norm_eps=1e-5,
    )


def infer_beit(shapes: Shapes, image_size: tuple[int, int] | None) -> dict:
    """Return the fields of ViTConfig except num_heads, of a BEiT. A model without fc_norm is pooled by [class]."""
    fields = _infer_stem(shapes) | _infer_blocks(shapes)
    ph, pw = fields["patch_size"]
    table = "blocks.0." + BIAS_TABLE
    grid = infer_distances(shapes[table if table in shapes else SHARED_TABLE][0], (ph, pw), image_size)
    return fields | dict(
        image_size=(grid[0] * ph, grid[1] * pw),
        position_table="pos_embed" in shapes,
        relative_bias="blocks" if table in shapes else "shared",
        pooling="gap" if fields["final_norm"] == "pooled" else "cls",
        posemb_resize="bicubic_antialias" if "pos_embed" in shapes else "geometric",
    )


def compute_index(config: ViTConfig) -> np.ndarray:
    """Return the buffer of a model's relative positions."""
    return relative_position_index(config.grid)


def infer_preprocess(shapes: Shapes) -> Preprocess | None:
    """Return the preprocess of DINOv3, EVA-02 and the axial RoPE-ViT; None for timm's own models, which differ."""
    if "pos_embed" in shapes and "blocks.0.attn.qkv.bias" not in shapes:
        return replace(CLIP, crop=0.9)
    if "cls_token" not in shapes:
        return None
    return replace(IMAGENET, crop=1.0 if "reg_token" in shapes else 0.9)


COMMON_KEYS = (
    "patch_embed.proj.weight",
    "blocks.0.attn.proj.weight",
    "blocks.0.mlp.fc2.weight",
    "blocks.0.norm1.weight",
)
EVA = Layout(
    name="timm_eva",
    title="timm DINOv3, EUPE, EVA, EVA-02, RoPE-ViT",
    rules=RULES,
    infer_architecture=infer_architecture,
    signature_keys=(*COMMON_KEYS, "blocks.0.gamma_1|blocks.0.attn.q_bias|blocks.0.attn.q_proj.weight"),
    unused=(r"mask_token", r"lm_head\..*"),
    sidecar_family="timm",
    preprocess=infer_preprocess,
    assumes=("rotary",),
)
PERCEPTION = Layout(
    name="timm_pe",
    title="timm Perception Encoder: core, lang and spatial",
    rules=RULES,
    infer_architecture=infer_perception,
    signature_keys=(*COMMON_KEYS, "norm_pre.weight", "pos_embed", "attn_pool.latent|!norm.weight"),
    sidecar_family="timm",
    preprocess=lambda shapes: Preprocess(kernel="bicubic", crop=1.0),
    assumes=("rotary", "pool_heads"),
)
BEIT = Layout(
    name="beit",
    title="timm and Microsoft BEiT and BEiTv2",
    rules=RULES,
    infer_architecture=infer_beit,
    signature_keys=(*COMMON_KEYS, "blocks.0.attn.qkv.weight", f"blocks.0.{BIAS_TABLE}|{SHARED_TABLE}"),
    unused=(r"mask_token", r"lm_head\..*"),
    buffers={r"(blocks\.\d+\.attn|rel_pos_bias)\.relative_position_index": compute_index},
    sidecar_family="timm",
    assumes=("relative_bias",),
)
