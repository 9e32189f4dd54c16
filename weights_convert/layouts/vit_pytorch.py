"""lucidrains' vit-pytorch (https://github.com/lucidrains/vit-pytorch), versions 0.7.1 to 1.26: its ViT.

Common to all: no bias in q, k and v, heads of width 64 unless changed, eps 1e-5. What differs by version:
- from 1.0 (2023-02), LayerNorm is applied to a patch's pixels and to its embedding;
- before 1.4 (2023-08), blocks are wrapped ("0.fn.to_qkv"), and the final norm is the first layer of the head;
- before 0.10.1 (2021-03), they are wrapped once more ("0.fn.fn.to_qkv").
Export uses the names of the newest version that has the architecture. A single head as wide as the tokens has no output
projection. Mean pooling is over all tokens, [class] included where it exists, which arrays do not show.
"""

import math
import re
from collections.abc import Callable, Mapping

import numpy as np

from vit_jax import ViTConfig
from weights_convert.layouts.inference import Shapes, count_layers, count_rows, infer_flat_patch, infer_grid
from weights_convert.layouts.layout import Layout
from weights_convert.rules import IDENTITY, LINEAR, TABLE, Rule, Transform, constant, dense, norm

LAYER = "transformer.layers.{i}."
HEAD_WIDTH = 64
OLD_NAMES = (  # of versions before 1.4 -> of later ones; the first line is for versions before 0.10.1
    (r"(layers\.\d+\.\d)\.fn\.(norm|fn)\.", r"\1.\2."),
    (r"(layers\.\d+\.0)\.fn\.", r"\1."),
    (r"(layers\.\d+\.1)\.norm\.", r"\1.net.0."),
    (r"(layers\.\d+\.1)\.fn\.net\.0\.", r"\1.net.1."),
    (r"(layers\.\d+\.1)\.fn\.net\.[23]\.", r"\1.net.4."),  # 2 without dropout
)
TO_OLD_NAMES = (
    (r"(layers\.\d+\.0)\.to_", r"\1.fn.to_"),
    (r"(layers\.\d+\.1)\.net\.0\.", r"\1.norm."),
    (r"(layers\.\d+\.1)\.net\.1\.", r"\1.fn.net.0."),
    (r"(layers\.\d+\.1)\.net\.4\.", r"\1.fn.net.3."),
)


def has_head_norm(config: ViTConfig) -> bool:
    """Return whether the final norm is part of the head, as before version 1.4."""
    return config.final_norm == "pooled"


def unflatten_patches(config: ViTConfig) -> Transform:
    """Reshape the patch embedding from a dense layer [D, ph * pw * channels] to [ph, pw, channels, D]."""
    shape = (*config.patch_size, config.in_channels, config.width)
    return Transform(lambda w: w.T.reshape(shape), lambda k: (k.reshape(-1, shape[-1]).T,))


def drop_leading_axis(config: ViTConfig) -> Transform:
    """Keep tokens and tables as [1, N, D], as versions before 1.4 store them; store them as [N, D] in later ones."""
    return IDENTITY if has_head_norm(config) else TABLE


def omitted_projection(config: ViTConfig) -> Transform:
    """Produce the identity as the output projection of a single head."""
    return constant(np.eye(config.width), "the layout vit_pytorch has no place for an output projection without bias")


def _patch_rules(layer: int, when: Callable[[ViTConfig], bool]) -> tuple[Rule, Rule]:
    source = f"to_patch_embedding.{layer}"
    return (
        Rule(f"{source}.weight", "patch_embed.kernel", unflatten_patches, when),
        Rule(f"{source}.bias", "patch_embed.bias", when=when),
    )


COMMON_RULES = (
    *norm("to_patch_embedding.1", "patch_embed.norm_pixels"),
    *_patch_rules(2, lambda config: config.patch_norms),
    *norm("to_patch_embedding.3", "patch_embed.norm_tokens"),
    *_patch_rules(1, lambda config: not config.patch_norms),
    *norm(LAYER + "0.norm", "blocks.{i}.norm1"),
    Rule(LAYER + "0.to_qkv.weight", "blocks.{i}.attn.qkv.kernel", LINEAR),
    *norm(LAYER + "1.net.0", "blocks.{i}.norm2"),
    *dense(LAYER + "1.net.1", "blocks.{i}.mlp.up"),
    *norm("transformer.norm", "norm", when=lambda config: not has_head_norm(config)),
)


def head_rules(name: str) -> tuple[Rule, ...]:
    """Return the rules for the head, alone or after the final norm."""
    return (
        *norm(f"{name}.0", "norm", when=has_head_norm),
        *dense(f"{name}.1", "head", when=has_head_norm),
        *dense(name, "head", when=lambda config: not has_head_norm(config)),
    )


def infer_common(
    shapes: Shapes, head: str, *, num_patches: int, image_size: tuple[int, int] | None, in_channels: int | None
) -> dict:
    """Return the fields of ViTConfig that ViT and SimpleViT share, without the image size.

    num_heads is left out if q, k and v are as wide as the tokens, or if heads of width 64 do not fit: the library's
    default would be a guess.
    """
    has_norms = len(shapes["to_patch_embedding.1.weight"]) == 1
    width, values = shapes[f"to_patch_embedding.{2 if has_norms else 1}.weight"]
    side, channels = infer_flat_patch(values, num_patches=num_patches, image_size=image_size, in_channels=in_channels)
    has_norm_in_head = f"{head}.0.weight" in shapes
    inner = shapes[LAYER.replace("{i}", "0") + "0.to_qkv.weight"][0] // 3
    fields = dict(
        patch_size=(side, side),
        width=width,
        depth=count_layers(shapes, LAYER),
        attention_width=0 if inner == width else inner,
        mlp_dim=shapes[LAYER.replace("{i}", "0") + "1.net.1.weight"][0],
        num_classes=count_rows(shapes, f"{head}.1.weight" if has_norm_in_head else f"{head}.weight"),
        in_channels=channels,
        final_norm="pooled" if has_norm_in_head else "tokens" if "transformer.norm.weight" in shapes else "none",
        qkv_bias=False,
        patch_norms=has_norms,
        norm_eps=1e-5,
        posemb_resize="bilinear",
    )
    return fields if inner == width or inner % HEAD_WIDTH else fields | {"num_heads": inner // HEAD_WIDTH}


def infer_architecture(shapes: Shapes, image_size: tuple[int, int] | None, *, in_channels: int | None = None) -> dict:
    """Return the fields of ViTConfig; num_heads only as infer_common says.

    Raises InputError for patches that are not square, unless in_channels or the image size shows their shape.
    """
    width = shapes["pos_embedding"][-1]
    class_tokens = math.prod(shapes.get("cls_token", (0,))) // width
    positions = shapes["pos_embedding"][-2]
    fields = infer_common(
        shapes, "mlp_head", num_patches=positions - class_tokens, image_size=image_size, in_channels=in_channels
    )
    side = fields["patch_size"][0]
    rows, columns = infer_grid(positions - class_tokens, (side, side), image_size)
    has_projection = "transformer.layers.0.0.to_out.0.weight" in shapes
    return (
        fields
        | ({} if has_projection else {"num_heads": 1})
        | dict(
            image_size=(rows * side, columns * side),
            class_token=class_tokens > 0,
            pooling="cls" if class_tokens else "gap",
            out_bias=has_projection,
        )
    )


def rename_key(name: str) -> str:
    """Return an array's name as version 1.4 and later have it."""
    for pattern, new in OLD_NAMES:
        name = re.sub(pattern, new, name)
    return name


def export_key(name: str, config: ViTConfig) -> str:
    """Return an array's name in the newest version that has the architecture."""
    for pattern, new in TO_OLD_NAMES if has_head_norm(config) else ():
        name = re.sub(pattern, new, name)
    return name


def empty_class_token(config: ViTConfig) -> Mapping[str, np.ndarray]:
    """Return the [class] token of zero rows that vit-pytorch's mean-pooled ViT expects."""
    return {} if config.class_token else {"cls_token": np.zeros((0, config.width), np.float32)}


SIGNATURE_KEYS = (
    "to_patch_embedding.1.weight",
    "transformer.layers.0.0.norm.weight",
    "transformer.layers.0.0.to_qkv.weight",
    "transformer.layers.0.1.net.1.weight",
)

LAYOUT = Layout(
    name="vit_pytorch",
    title="vit-pytorch ViT",
    rules=(
        Rule("cls_token", "class_token", drop_leading_axis),
        Rule("pos_embedding", "position_embedding", drop_leading_axis),
        *COMMON_RULES,
        *dense(LAYER + "0.to_out.0", "blocks.{i}.attn.out", when=lambda config: config.out_bias),
        Rule((), "blocks.{i}.attn.out.kernel", omitted_projection, lambda config: not config.out_bias),
        *dense(LAYER + "1.net.4", "blocks.{i}.mlp.down"),
        *head_rules("mlp_head"),
    ),
    infer_architecture=infer_architecture,
    signature_keys=(*SIGNATURE_KEYS, "pos_embedding", "transformer.layers.0.1.net.4.weight"),
    unused=(r"cls_token",),
    rename_key=rename_key,
    export_key=export_key,
    export_extra=empty_class_token,
    assumes=("pooling", "in_channels"),
)
