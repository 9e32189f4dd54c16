"""torchvision's VisionTransformer (https://github.com/pytorch/vision, models/vision_transformer.py).

Versions before 0.13 name the two layers of the MLP linear_1 and linear_2: read, and written as the present mlp.0 and
mlp.3. A model with a convolutional stem is refused.
"""

import re

from weights_convert.layouts.inference import Shapes, count_layers, count_rows, infer_grid
from weights_convert.layouts.layout import Layout
from weights_convert.layouts.preprocessing import TORCHVISION, always
from weights_convert.rules import CONV, LINEAR, Rule, dense, norm

LAYER = "encoder.layers.encoder_layer_{i}."
OLD_MLP = {"linear_1": "0", "linear_2": "3"}

RULES = (
    Rule("class_token", "class_token"),
    Rule("encoder.pos_embedding", "position_embedding"),
    Rule("conv_proj.weight", "patch_embed.kernel", CONV),
    Rule("conv_proj.bias", "patch_embed.bias"),
    *norm(LAYER + "ln_1", "blocks.{i}.norm1"),
    Rule(LAYER + "self_attention.in_proj_weight", "blocks.{i}.attn.qkv.kernel", LINEAR),
    Rule(LAYER + "self_attention.in_proj_bias", "blocks.{i}.attn.qkv.bias"),
    *dense(LAYER + "self_attention.out_proj", "blocks.{i}.attn.out"),
    *norm(LAYER + "ln_2", "blocks.{i}.norm2"),
    *dense(LAYER + "mlp.0", "blocks.{i}.mlp.up"),
    *dense(LAYER + "mlp.3", "blocks.{i}.mlp.down"),
    *norm("encoder.ln", "norm"),
    *dense("heads.pre_logits", "representation"),
    *dense("heads.head", "head"),
)


def rename_key(name: str) -> str:
    """Return an array's name with the present numbers of the MLP's layers."""
    return re.sub(r"\.mlp\.(linear_[12])\.", lambda match: f".mlp.{OLD_MLP[match[1]]}.", name)


def infer_architecture(shapes: Shapes, image_size: tuple[int, int] | None) -> dict:
    """Return the fields of ViTConfig except num_heads."""
    width, channels, ph, pw = shapes["conv_proj.weight"]
    rows, columns = infer_grid(shapes["encoder.pos_embedding"][1] - 1, (ph, pw), image_size)
    return dict(
        image_size=(rows * ph, columns * pw),
        patch_size=(ph, pw),
        width=width,
        depth=count_layers(shapes, LAYER),
        mlp_dim=shapes[LAYER.replace("{i}", "0") + "mlp.0.weight"][0],
        num_classes=count_rows(shapes, "heads.head.weight"),
        in_channels=channels,
        representation=count_rows(shapes, "heads.pre_logits.weight"),
        norm_eps=1e-6,
        posemb_resize="bicubic",
    )


LAYOUT = Layout(
    name="torchvision",
    title="torchvision ViT",
    rules=RULES,
    infer_architecture=infer_architecture,
    signature_keys=(
        "class_token",
        "conv_proj.weight",
        "encoder.pos_embedding",
        "encoder.layers.encoder_layer_0.self_attention.in_proj_weight",
        "encoder.ln.weight",
    ),
    rename_key=rename_key,
    preprocess=always(TORCHVISION),
)
