"""lucidrains' vit-pytorch (https://github.com/lucidrains/vit-pytorch, 1.26): ViT and SimpleViT.

Both apply LayerNorm to a patch's pixels and to its embedding, have no bias in q, k and v, and heads of width 64.
SimpleViT (https://arxiv.org/abs/2205.01580) has no position parameters: positions are sines and cosines. Files of older
versions, whose tokens and positions have a leading axis of length 1, are read but not written.
"""

import math
from collections.abc import Mapping
from functools import partial

import numpy as np

from vit_jax import InputError, ViTConfig
from weights_convert.layouts.layout import Layout, Shapes, count_layers, infer_positions
from weights_convert.rules import LINEAR, TABLE, Rule, Transform, dense, norm

LAYER = "transformer.layers.{i}."
HEAD_WIDTH = 64


def unflatten_patches(config: ViTConfig) -> Transform:
    """Reshape the patch embedding from a dense layer [D, ph * pw * channels] to [ph, pw, channels, D]."""
    shape = (*config.patch_size, config.in_channels, config.width)
    return Transform(lambda w: w.T.reshape(shape), lambda k: (k.reshape(-1, shape[-1]).T,))


def sincos_table(grid: tuple[int, int], width: int, temperature: float = 10000.0) -> np.ndarray:
    """Return the fixed positions [1, gh * gw, D]: (sin x, cos x, sin y, cos y), a quarter of the width each."""
    frequency = temperature ** (-np.arange(width // 4) / (width // 4 - 1))
    rows, columns = np.divmod(np.arange(math.prod(grid)), grid[1])
    angles = [coordinate[:, None] * frequency for coordinate in (columns, rows)]
    return np.concatenate([f(angle) for angle in angles for f in (np.sin, np.cos)], axis=1)[None]


def constant_positions(config: ViTConfig) -> Transform:
    """Produce the fixed position table, which no array holds; the inverse refuses any other table."""
    table = sincos_table(config.grid, config.width)

    def inverse(positions: np.ndarray) -> tuple[np.ndarray, ...]:
        if positions.any() and np.abs(positions - table).max() > 1e-6:  # zeros come from infer_source_shapes
            raise InputError("the layout simple_vit has no place for positions that were trained or resized")
        return ()

    return Transform(lambda: table, inverse)


def _common(mlp_down: int) -> tuple[Rule, ...]:
    return (
        *norm("to_patch_embedding.1", "patch_embed.norm_pixels"),
        Rule("to_patch_embedding.2.weight", "patch_embed.kernel", unflatten_patches),
        Rule("to_patch_embedding.2.bias", "patch_embed.bias"),
        *norm("to_patch_embedding.3", "patch_embed.norm_tokens"),
        *norm(LAYER + "0.norm", "blocks.{i}.norm1"),
        Rule(LAYER + "0.to_qkv.weight", "blocks.{i}.attn.qkv.kernel", LINEAR),
        *norm(LAYER + "1.net.0", "blocks.{i}.norm2"),
        *dense(LAYER + "1.net.1", "blocks.{i}.mlp.up"),
        *dense(f"{LAYER}1.net.{mlp_down}", "blocks.{i}.mlp.down"),
        *norm("transformer.norm", "norm"),
    )


def infer_architecture(shapes: Shapes, image_size: tuple[int, int] | None, *, head: str) -> dict:
    """Return the fields of ViTConfig. num_heads assumes heads of width 64.

    Raises InputError for patches that are not square with 3 channels, and for a SimpleViT without an image size, which
    no array shows.
    """
    width, pixels = shapes["to_patch_embedding.2.weight"]
    patch = math.isqrt(pixels // 3)
    if 3 * patch * patch != pixels:
        raise InputError(
            f"patches of {pixels} values are not squares of 3 channels, and arrays do not show their shape"
        )
    class_tokens = math.prod(shapes.get("cls_token", (0,))) // width
    if "pos_embedding" in shapes:
        grid, _ = infer_positions(shapes["pos_embedding"][-2], class_tokens, (patch, patch), image_size)
    elif image_size is None:
        raise InputError("SimpleViT's arrays do not show the image size; give it (--image-size)")
    else:
        grid = (image_size[0] // patch, image_size[1] // patch)
    inner = shapes["transformer.layers.0.0.to_qkv.weight"][0] // 3
    return dict(
        image_size=(grid[0] * patch, grid[1] * patch),
        patch_size=(patch, patch),
        width=width,
        depth=count_layers(shapes, LAYER),
        num_heads=max(1, inner // HEAD_WIDTH),
        attention_width=0 if inner == width else inner,
        mlp_dim=shapes["transformer.layers.0.1.net.1.weight"][0],
        num_classes=shapes[head][0] if head in shapes else 0,
        class_token=class_tokens > 0,
        pooling="cls" if class_tokens else "gap",
        qkv_bias=False,
        out_bias="transformer.layers.0.0.to_out.0.bias" in shapes,
        patch_norms=True,
        norm_eps=1e-5,
        posemb_resize="bilinear",
    )


def empty_class_token(config: ViTConfig) -> Mapping[str, np.ndarray]:
    """Return the [class] token of zero rows that vit-pytorch's mean-pooled ViT expects."""
    return {} if config.class_token else {"cls_token": np.zeros((0, config.width), np.float32)}


SIGNATURE_KEYS = ("to_patch_embedding.1.weight", "to_patch_embedding.2.weight", "transformer.layers.0.0.to_qkv.weight")

VIT = Layout(
    name="vit_pytorch",
    title="vit-pytorch ViT",
    rules=(
        Rule("cls_token", "class_token", TABLE),
        Rule("pos_embedding", "position_embedding", TABLE),
        *_common(4),
        *dense(LAYER + "0.to_out.0", "blocks.{i}.attn.out"),
        *dense("mlp_head", "head"),
    ),
    infer_architecture=partial(infer_architecture, head="mlp_head.weight"),
    signature_keys=(
        *SIGNATURE_KEYS,
        "pos_embedding",
        "transformer.layers.0.0.to_out.0.weight",
        "transformer.layers.0.1.net.4.weight",
    ),
    unused=(r"cls_token",),
    export_extra=empty_class_token,
)

SIMPLE_VIT = Layout(
    name="simple_vit",
    title="vit-pytorch SimpleViT",
    rules=(
        *_common(3),
        Rule((), "position_embedding", constant_positions),
        Rule(LAYER + "0.to_out.weight", "blocks.{i}.attn.out.kernel", LINEAR),
        *dense("linear_head", "head"),
    ),
    infer_architecture=partial(infer_architecture, head="linear_head.weight"),
    signature_keys=(*SIGNATURE_KEYS, "transformer.layers.0.0.to_out.weight", "transformer.layers.0.1.net.3.weight"),
)
