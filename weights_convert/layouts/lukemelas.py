"""PyTorch-Pretrained-ViT (https://github.com/lukemelas/PyTorch-Pretrained-ViT): the state_dict of its ViT.

The ImageNet-21k files hold a pre_logits layer. The original does not use it by default (load_repr_layer=False), nor
does this table.
"""

from weights_convert.layouts.inference import Shapes, count_layers, infer_grid
from weights_convert.layouts.layout import Layout
from weights_convert.layouts.preprocessing import GOOGLE, always
from weights_convert.rules import CONV, FUSED_BIAS, FUSED_LINEAR, LINEAR, Rule

BLOCK = "transformer.blocks.{i}."
QKV = ("attn.proj_q", "attn.proj_k", "attn.proj_v")

RULES = (
    Rule("class_token", "class_token"),
    Rule("positional_embedding.pos_embedding", "position_embedding"),
    Rule("patch_embedding.weight", "patch_embed.kernel", CONV),
    Rule("patch_embedding.bias", "patch_embed.bias"),
    Rule(BLOCK + "norm1.weight", "blocks.{i}.norm1.scale"),
    Rule(BLOCK + "norm1.bias", "blocks.{i}.norm1.bias"),
    Rule(tuple(f"{BLOCK}{part}.weight" for part in QKV), "blocks.{i}.attn.qkv.kernel", FUSED_LINEAR),
    Rule(tuple(f"{BLOCK}{part}.bias" for part in QKV), "blocks.{i}.attn.qkv.bias", FUSED_BIAS),
    Rule(BLOCK + "proj.weight", "blocks.{i}.attn.out.kernel", LINEAR),
    Rule(BLOCK + "proj.bias", "blocks.{i}.attn.out.bias"),
    Rule(BLOCK + "norm2.weight", "blocks.{i}.norm2.scale"),
    Rule(BLOCK + "norm2.bias", "blocks.{i}.norm2.bias"),
    Rule(BLOCK + "pwff.fc1.weight", "blocks.{i}.mlp.up.kernel", LINEAR),
    Rule(BLOCK + "pwff.fc1.bias", "blocks.{i}.mlp.up.bias"),
    Rule(BLOCK + "pwff.fc2.weight", "blocks.{i}.mlp.down.kernel", LINEAR),
    Rule(BLOCK + "pwff.fc2.bias", "blocks.{i}.mlp.down.bias"),
    Rule("norm.weight", "norm.scale"),
    Rule("norm.bias", "norm.bias"),
    Rule("fc.weight", "head.kernel", LINEAR),
    Rule("fc.bias", "head.bias"),
)


def infer_architecture(shapes: Shapes, image_size: tuple[int, int] | None) -> dict:
    """Return the fields of ViTConfig except num_heads."""
    width, channels, ph, pw = shapes["patch_embedding.weight"]
    positions = shapes["positional_embedding.pos_embedding"][1]
    rows, columns = infer_grid(positions - 1, (ph, pw), image_size)
    return dict(
        image_size=(rows * ph, columns * pw),
        patch_size=(ph, pw),
        width=width,
        depth=count_layers(shapes, BLOCK),
        mlp_dim=shapes[BLOCK.replace("{i}", "0") + "pwff.fc1.weight"][0],
        num_classes=shapes["fc.weight"][0],
        in_channels=channels,
        dropout=0.1,
        attention_dropout=0.1,
        norm_eps=1e-6,
        posemb_resize="zoom",
    )


LAYOUT = Layout(
    name="lukemelas",
    title="PyTorch-Pretrained-ViT",
    rules=RULES,
    infer_architecture=infer_architecture,
    signature_keys=(
        "positional_embedding.pos_embedding",
        "patch_embedding.weight",
        "transformer.blocks.0.attn.proj_q.weight",
        "transformer.blocks.0.pwff.fc1.weight",
        "fc.weight",
    ),
    unused=(r"pre_logits\.(weight|bias)",),
    preprocess=always(GOOGLE),
)
