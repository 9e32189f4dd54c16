"""timm's VisionTransformer (https://github.com/huggingface/pytorch-image-models, models/vision_transformer.py, 1.0).

ViT, DeiT (distilled too), DeiT-III, DINO, DINOv2 with and without registers, CLIP and SigLIP image towers, and
average-pooled models. facebookresearch's DINO, DeiT, MAE and I-JEPA files use the same names.
"""

from vit_jax import InputError, ViTConfig
from vit_jax.preprocess import Preprocess
from weights_convert.layouts.inference import Shapes, count_layers, count_rows, infer_positions
from weights_convert.layouts.layout import Layout
from weights_convert.layouts.preprocessing import CLIP, IMAGENET, SIGLIP
from weights_convert.rules import CONV, FUSED_QUERY, FUSED_QUERY_BIAS, Rule, dense, norm

BLOCK = "blocks.{i}."
DINO_HEAD = "head.mlp.0.weight"


def uses_fc_norm(config: ViTConfig) -> bool:
    """Return whether the final norm is timm's fc_norm, which is applied to the mean of the patches."""
    return config.final_norm == "pooled" and config.pooling == "gap"


RULES = (
    Rule("cls_token", "class_token"),
    Rule("dist_token", "distillation_token"),
    Rule("reg_token", "registers"),
    Rule("pos_embed", "position_embedding"),
    Rule("patch_embed.proj.weight", "patch_embed.kernel", CONV),
    Rule("patch_embed.proj.bias", "patch_embed.bias"),
    *norm("norm_pre", "pre_norm"),
    *norm(BLOCK + "norm1", "blocks.{i}.norm1"),
    *dense(BLOCK + "attn.qkv", "blocks.{i}.attn.qkv"),
    *dense(BLOCK + "attn.proj", "blocks.{i}.attn.out"),
    Rule(BLOCK + "ls1.gamma", "blocks.{i}.scale1"),
    *norm(BLOCK + "norm2", "blocks.{i}.norm2"),
    *dense(BLOCK + "mlp.fc1", "blocks.{i}.mlp.up"),
    *dense(BLOCK + "mlp.fc2", "blocks.{i}.mlp.down"),
    Rule(BLOCK + "ls2.gamma", "blocks.{i}.scale2"),
    *norm("norm", "norm", when=lambda config: not uses_fc_norm(config)),
    *norm("fc_norm", "norm", when=uses_fc_norm),
    Rule("attn_pool.latent", "pool.probe"),
    Rule(("attn_pool.q.weight", "attn_pool.kv.weight"), "pool.qkv_kernel", FUSED_QUERY),
    Rule(("attn_pool.q.bias", "attn_pool.kv.bias"), "pool.qkv_bias", FUSED_QUERY_BIAS),
    *dense("attn_pool.proj", "pool.out"),
    *norm("attn_pool.norm", "pool.norm"),
    *dense("attn_pool.mlp.fc1", "pool.mlp.up"),
    *dense("attn_pool.mlp.fc2", "pool.mlp.down"),
    *dense("head", "head"),
    *dense("head_dist", "distillation_head"),
)


def infer_architecture(shapes: Shapes, image_size: tuple[int, int] | None) -> dict:
    """Return the fields of ViTConfig except num_heads.

    Defaults of what arrays do not show: eps 1e-5 with a norm before the blocks (CLIP), else 1e-6; exact GELU, as timm
    has it in its SigLIP towers too (the sidecar config states CLIP's quick GELU).

    Raises InputError for a Perception Encoder: a norm before the blocks with attention pooling or without a last norm.
    """
    if "norm_pre.weight" in shapes and ("attn_pool.latent" in shapes or "norm.weight" not in shapes):
        raise InputError("a Perception Encoder, whose rotary positions are in no array; its layout is timm_pe")
    width, channels, ph, pw = shapes["patch_embed.proj.weight"]
    has_class, distilled = "cls_token" in shapes, "dist_token" in shapes
    grid, class_position = infer_positions(
        shapes["pos_embed"][1],
        int(has_class) + int(distilled),
        (ph, pw),
        image_size,
        has_registers="reg_token" in shapes,
    )
    attention_pool, pooled_norm = "attn_pool.latent" in shapes, "fc_norm.weight" in shapes
    pooling = "map" if attention_pool else "gap" if pooled_norm or not has_class else "cls"
    pre_norm = "norm_pre.weight" in shapes
    mlp_dim = shapes["blocks.0.mlp.fc2.weight"][1]
    gated = shapes["blocks.0.mlp.fc1.weight"][0] == 2 * mlp_dim  # timm's packed SwiGLU (DINOv2 giant)
    return dict(
        image_size=(grid[0] * ph, grid[1] * pw),
        patch_size=(ph, pw),
        width=width,
        depth=count_layers(shapes, BLOCK),
        mlp_dim=mlp_dim,
        num_classes=count_rows(shapes, "head.weight"),
        in_channels=channels,
        class_token=has_class,
        class_position=class_position,
        distillation_token=distilled,
        distillation_head=count_rows(shapes, "head_dist.weight") > 0,
        num_registers=shapes["reg_token"][1] if "reg_token" in shapes else 0,
        pooling=pooling,
        final_norm="pooled" if pooled_norm else "tokens" if "norm.weight" in shapes else "none",
        pre_norm=pre_norm,
        layer_scale="blocks.0.ls1.gamma" in shapes,
        activation="swiglu" if gated else "gelu",
        qkv_bias="blocks.0.attn.qkv.bias" in shapes,
        patch_bias="patch_embed.proj.bias" in shapes,
        head_bias="head.bias" in shapes or "head.weight" not in shapes,
        norm_eps=1e-5 if pre_norm else 1e-6,
        posemb_resize="bicubic_antialias",
    )


def infer_preprocess(shapes: Shapes) -> Preprocess | None:
    """Return the preprocess of the families that keys show; None for the others, which differ among themselves."""
    if "attn_pool.latent" in shapes:
        return SIGLIP
    if "norm_pre.weight" in shapes:
        return CLIP
    is_mae = "decoder_pos_embed" in shapes
    is_dinov2 = "blocks.0.ls1.gamma" in shapes and "mask_token" in shapes
    return IMAGENET if is_mae or is_dinov2 or "dist_token" in shapes or DINO_HEAD in shapes else None


LAYOUT = Layout(
    name="timm",
    title="timm ViT, DeiT, DINO, DINOv2, MAE, I-JEPA, CLIP, SigLIP",
    rules=RULES,
    infer_architecture=infer_architecture,
    # Pretraining files hold MAE's decoder, DINO's projection head, a mask token.
    unused=(r"decoder_.*", r"head\.(mlp|last_layer)\..*", r"mask_token"),
    signature_keys=("pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight", "blocks.0.mlp.fc1.weight"),
    sidecar_family="timm",
    preprocess=infer_preprocess,
)
