"""lucidrains' vit-pytorch (https://github.com/lucidrains/vit-pytorch, 1.26): ViT and SimpleViT.

Both norm the pixels of a patch and the tokens made of them, have no bias in q, k and v, and heads of 64 whatever the
width. SimpleViT (https://arxiv.org/abs/2205.01580) has no parameters for positions: they are sines and cosines.
Older versions keep the tokens and positions with a leading axis of length 1: that is read, not written.
"""

import math
from collections.abc import Mapping
from functools import partial

import numpy as np

from vit_jax import InputError, ViTConfig
from weights_convert.layouts.layout import Layout, Shapes, count_layers, positions_of
from weights_convert.rules import LINEAR, TABLE, Rule, Transform, dense, norm

LAYER = "transformer.layers.{i}."
HEAD_WIDTH = 64


def flat_patches(config: ViTConfig) -> Transform:
    """The patch embedding as a dense layer: [D, ph * pw * channels]."""
    shape = (*config.patch_size, config.in_channels, config.width)
    return Transform(lambda w: w.T.reshape(shape), lambda k: (k.reshape(-1, shape[-1]).T,))


def sincos(grid: tuple[int, int], width: int, temperature: float = 10000.0) -> np.ndarray:
    """Fixed positions [1, gh * gw, D]: (sin x, cos x, sin y, cos y), a quarter of the width each."""
    frequency = temperature ** (-np.arange(width // 4) / (width // 4 - 1))
    rows, columns = np.divmod(np.arange(math.prod(grid)), grid[1])
    angles = [place[:, None] * frequency for place in (columns, rows)]
    return np.concatenate([f(angle) for angle in angles for f in (np.sin, np.cos)], axis=1)[None]


def fixed_positions(config: ViTConfig) -> Transform:
    """No foreign array makes the positions, and none is made of them, so they must still be the fixed ones."""
    table = sincos(config.grid, config.width)

    def inverse(ours: np.ndarray) -> tuple[np.ndarray, ...]:
        if ours.any() and np.abs(ours - table).max() > 1e-6:  # rules ask for shapes with zeros
            raise InputError("the layout simple_vit has no place for positions that were trained or resized")
        return ()

    return Transform(lambda: table, inverse)


def _common(mlp_down: int) -> tuple[Rule, ...]:
    return (
        *norm("to_patch_embedding.1", "patch_embed.norm_pixels"),
        Rule("to_patch_embedding.2.weight", "patch_embed.kernel", flat_patches),
        Rule("to_patch_embedding.2.bias", "patch_embed.bias"),
        *norm("to_patch_embedding.3", "patch_embed.norm_tokens"),
        *norm(LAYER + "0.norm", "blocks.{i}.norm1"),
        Rule(LAYER + "0.to_qkv.weight", "blocks.{i}.attn.qkv.kernel", LINEAR),
        *norm(LAYER + "1.net.0", "blocks.{i}.norm2"),
        *dense(LAYER + "1.net.1", "blocks.{i}.mlp.up"),
        *dense(f"{LAYER}1.net.{mlp_down}", "blocks.{i}.mlp.down"),
        *norm("transformer.norm", "norm"),
    )


def architecture(shapes: Shapes, image_size: tuple[int, int] | None, *, head: str) -> dict:
    """ViTConfig's fields as the arrays tell them. Heads are 64 wide unless told otherwise.

    SimpleViT's image size is in no array: it must be given. Raises InputError when it is not, KeyError when an array
    lacks.
    """
    width, pixels = shapes["to_patch_embedding.2.weight"]
    patch = math.isqrt(pixels // 3)
    if 3 * patch * patch != pixels:
        raise InputError(f"patches of {pixels} values are no squares of 3 channels, and the arrays do not tell which")
    class_tokens = math.prod(shapes.get("cls_token", (0,))) // width
    if "pos_embedding" in shapes:
        grid, _ = positions_of(shapes["pos_embedding"][-2], class_tokens, (patch, patch), image_size)
    elif image_size is None:
        raise InputError("SimpleViT's arrays do not tell the image size: give it (--image-size)")
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


def no_class_token(config: ViTConfig) -> Mapping[str, np.ndarray]:
    """vit-pytorch's ViT that pools by the mean keeps a [class] token of no rows."""
    return {} if config.class_token else {"cls_token": np.zeros((0, config.width), np.float32)}


MARKS = ("to_patch_embedding.1.weight", "to_patch_embedding.2.weight", "transformer.layers.0.0.to_qkv.weight")

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
    architecture=partial(architecture, head="mlp_head.weight"),
    marks=(*MARKS, "pos_embedding", "transformer.layers.0.0.to_out.0.weight", "transformer.layers.0.1.net.4.weight"),
    unused=(r"cls_token",),
    also_exported=no_class_token,
)

SIMPLE_VIT = Layout(
    name="simple_vit",
    title="vit-pytorch SimpleViT",
    rules=(
        *_common(3),
        Rule((), "position_embedding", fixed_positions),
        Rule(LAYER + "0.to_out.weight", "blocks.{i}.attn.out.kernel", LINEAR),
        *dense("linear_head", "head"),
    ),
    architecture=partial(architecture, head="linear_head.weight"),
    marks=(*MARKS, "transformer.layers.0.0.to_out.weight", "transformer.layers.0.1.net.3.weight"),
)
