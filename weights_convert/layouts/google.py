"""Google's checkpoints (https://github.com/google-research/vision_transformer): ImageNet-21k and AugReg, .npz.

Hybrids with a ResNet before the transformer are refused.
"""

import numpy as np

from vit_jax import InputError, ViTConfig
from weights_convert.layouts.inference import Shapes, count_layers, count_rows, infer_grid
from weights_convert.layouts.layout import Layout
from weights_convert.layouts.preprocessing import GOOGLE, always
from weights_convert.rules import Rule, Transform

BLOCK = "Transformer/encoderblock_{i}/"
ATTENTION = BLOCK + "MultiHeadDotProductAttention_1/"
QKV = ("query", "key", "value")


def fuse_heads(config: ViTConfig) -> Transform:
    """Concatenate three kernels [D, H, K] to [D, 3 * H * K]."""
    heads = config.num_heads
    return Transform(
        lambda *w: np.concatenate([part.reshape(part.shape[0], -1) for part in w], axis=1),
        lambda w: tuple(part.reshape(w.shape[0], heads, -1) for part in np.split(w, 3, axis=1)),
    )


def fuse_head_biases(config: ViTConfig) -> Transform:
    """Concatenate three biases [H, K] to [3 * H * K]."""
    heads = config.num_heads
    return Transform(
        lambda *b: np.concatenate([part.reshape(-1) for part in b]),
        lambda b: tuple(part.reshape(heads, -1) for part in np.split(b, 3)),
    )


def merge_heads(config: ViTConfig) -> Transform:
    """Reshape the output kernel [H, K, D] to [H * K, D]."""
    heads = config.num_heads
    return Transform(lambda w: w.reshape(-1, w.shape[-1]), lambda w: (w.reshape(heads, -1, w.shape[-1]),))


def pair(source: str, target: str, weight: str = "kernel") -> tuple[Rule, Rule]:
    """Return the rules for a layer's kernel or scale, and its bias."""
    return Rule(f"{source}/{weight}", f"{target}.{weight}"), Rule(f"{source}/bias", f"{target}.bias")


RULES = (
    Rule("cls", "class_token"),
    Rule("Transformer/posembed_input/pos_embedding", "position_embedding"),
    *pair("embedding", "patch_embed"),
    *pair(BLOCK + "LayerNorm_0", "blocks.{i}.norm1", "scale"),
    Rule(tuple(f"{ATTENTION}{part}/kernel" for part in QKV), "blocks.{i}.attn.qkv.kernel", fuse_heads),
    Rule(tuple(f"{ATTENTION}{part}/bias" for part in QKV), "blocks.{i}.attn.qkv.bias", fuse_head_biases),
    Rule(ATTENTION + "out/kernel", "blocks.{i}.attn.out.kernel", merge_heads),
    Rule(ATTENTION + "out/bias", "blocks.{i}.attn.out.bias"),
    *pair(BLOCK + "LayerNorm_2", "blocks.{i}.norm2", "scale"),
    *pair(BLOCK + "MlpBlock_3/Dense_0", "blocks.{i}.mlp.up"),
    *pair(BLOCK + "MlpBlock_3/Dense_1", "blocks.{i}.mlp.down"),
    *pair("Transformer/encoder_norm", "norm", "scale"),
    *pair("pre_logits", "representation"),
    *pair("head", "head"),
)


def infer_architecture(shapes: Shapes, image_size: tuple[int, int] | None) -> dict:
    """Return the fields of ViTConfig, num_heads included."""
    if any(name.startswith(("conv_root", "block1/")) for name in shapes):
        raise InputError("a hybrid with a ResNet before the transformer, which is not supported; use a pure ViT file")
    ph, pw, channels, width = shapes["embedding/kernel"]
    rows, columns = infer_grid(shapes["Transformer/posembed_input/pos_embedding"][1] - 1, (ph, pw), image_size)
    return dict(
        image_size=(rows * ph, columns * pw),
        patch_size=(ph, pw),
        width=width,
        depth=count_layers(shapes, "Transformer/encoderblock_{i}", separator="/"),
        num_heads=shapes[ATTENTION.replace("{i}", "0") + "query/kernel"][1],
        mlp_dim=shapes[BLOCK.replace("{i}", "0") + "MlpBlock_3/Dense_0/kernel"][1],
        num_classes=count_rows(shapes, "head/bias"),
        in_channels=channels,
        representation=shapes["pre_logits/kernel"][1] if "pre_logits/kernel" in shapes else 0,
        norm_eps=1e-6,
        posemb_resize="zoom",
    )


LAYOUT = Layout(
    name="google",
    title="Google's ViT, .npz (ImageNet-21k, AugReg)",
    rules=RULES,
    infer_architecture=infer_architecture,
    signature_keys=(
        "cls",
        "embedding/kernel",
        "Transformer/posembed_input/pos_embedding",
        "Transformer/encoderblock_0/MultiHeadDotProductAttention_1/query/kernel",
        "Transformer/encoder_norm/scale",
    ),
    preprocess=always(GOOGLE),
)
