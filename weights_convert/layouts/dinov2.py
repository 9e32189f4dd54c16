"""facebookresearch's DINOv2 (https://github.com/facebookresearch/dinov2), with and without registers, SwiGLU too.

timm's names but for registers, the SwiGLU's, and a mask token that only its training used. The position table has an
entry for [class]. facebookresearch's first DINO has timm's names: see timm.
"""

from dataclasses import replace

from vit_jax import ViTConfig
from weights_convert.layouts import timm
from weights_convert.layouts.layout import Shapes
from weights_convert.rules import Rule, dense


def gated(config: ViTConfig) -> bool:
    """Whether the MLP is a SwiGLU (the giant model)."""
    return config.activation == "swiglu"


REPLACED = ("registers", "blocks.{i}.mlp.up.", "blocks.{i}.mlp.down.")
RULES = (
    *(rule for rule in timm.RULES if not rule.target.startswith(REPLACED)),
    Rule("register_tokens", "registers"),
    *dense(timm.BLOCK + "mlp.fc1", "blocks.{i}.mlp.up", when=lambda config: not gated(config)),
    *dense(timm.BLOCK + "mlp.fc2", "blocks.{i}.mlp.down", when=lambda config: not gated(config)),
    *dense(timm.BLOCK + "mlp.w12", "blocks.{i}.mlp.up", when=gated),
    *dense(timm.BLOCK + "mlp.w3", "blocks.{i}.mlp.down", when=gated),
)
TIMMS = {"register_tokens": "reg_token"}


def architecture(shapes: Shapes, image_size: tuple[int, int] | None) -> dict:
    """ViTConfig's fields as the arrays tell them, but num_heads. KeyError when an array lacks."""
    names = {
        name: TIMMS.get(name, name.replace(".mlp.w12.", ".mlp.fc1.").replace(".mlp.w3.", ".mlp.fc2."))
        for name in shapes
    }
    return timm.architecture({new: shapes[name] for name, new in names.items()}, image_size)


LAYOUT = replace(
    timm.LAYOUT,
    name="dinov2",
    title="facebookresearch's DINOv2, with and without registers",
    rules=RULES,
    architecture=architecture,
    marks=(*timm.LAYOUT.marks[:3], "mask_token", "blocks.0.ls1.gamma"),
    unused=("mask_token",),
)
