"""vit-pytorch's SimpleViT (https://arxiv.org/abs/2205.01580), versions 0.34 to 1.26.

Its positions are sines and cosines, which no array holds. See vit_pytorch.py for what differs between versions.
"""

import math

import numpy as np

from vit_jax import InputError, ViTConfig
from weights_convert.layouts.inference import Shapes
from weights_convert.layouts.layout import Layout
from weights_convert.layouts.vit_pytorch import COMMON_RULES, LAYER, SIGNATURE_KEYS, head_rules, infer_common
from weights_convert.rules import LINEAR, Rule, Transform, constant, dense


def sincos_table(grid: tuple[int, int], width: int, temperature: float = 10000.0) -> np.ndarray:
    """Return the fixed positions [1, gh * gw, D]: (sin x, cos x, sin y, cos y), a quarter of the width each."""
    frequency = temperature ** (-np.arange(width // 4) / (width // 4 - 1))
    rows, columns = np.divmod(np.arange(math.prod(grid)), grid[1])
    angles = [coordinate[:, None] * frequency for coordinate in (columns, rows)]
    return np.concatenate([f(angle) for angle in angles for f in (np.sin, np.cos)], axis=1)[None]


def constant_positions(config: ViTConfig) -> Transform:
    """Produce the fixed position table; the inverse refuses any other."""
    table = sincos_table(config.grid, config.width)
    return constant(table, "the layout simple_vit has no place for positions that were trained or resized")


def infer_architecture(shapes: Shapes, image_size: tuple[int, int] | None, *, in_channels: int | None = None) -> dict:
    """Return the fields of ViTConfig; num_heads only as infer_common says.

    Raises InputError without an image size, which no array shows, and for patches of unknown shape.
    """
    fields = infer_common(shapes, "linear_head", num_patches=0, image_size=image_size, in_channels=in_channels)
    if image_size is None:
        raise InputError("SimpleViT's arrays do not show the image size; give it (--image-size)")
    side = fields["patch_size"][0]
    return fields | dict(
        image_size=tuple(length // side * side for length in image_size),
        class_token=False,
        pooling="gap",
        out_bias=False,
    )


LAYOUT = Layout(
    name="simple_vit",
    title="vit-pytorch SimpleViT",
    rules=(
        *COMMON_RULES,
        Rule((), "position_embedding", constant_positions),
        Rule(LAYER + "0.to_out.weight", "blocks.{i}.attn.out.kernel", LINEAR),
        *dense(LAYER + "1.net.3", "blocks.{i}.mlp.down"),
        *head_rules("linear_head"),
    ),
    infer_architecture=infer_architecture,
    signature_keys=(*SIGNATURE_KEYS, "transformer.layers.0.0.to_out.weight", "transformer.layers.0.1.net.3.weight"),
    assumes=("in_channels",),
)
