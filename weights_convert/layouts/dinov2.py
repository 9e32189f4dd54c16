"""facebookresearch's DINOv2 (https://github.com/facebookresearch/dinov2): with and without registers, MLP and SwiGLU.

Its names are timm's except for the registers, the SwiGLU and a mask token that only training used. The position table
has an entry for [class]. Training files group the blocks in chunks ("blocks.1.7." is block 7) and hold projection
heads. The first DINO uses timm's names throughout: see timm.py.
"""

import re
from dataclasses import replace

from vit_jax import ViTConfig
from weights_convert.layouts import timm
from weights_convert.layouts.inference import Shapes
from weights_convert.layouts.preprocessing import IMAGENET, always
from weights_convert.rules import Rule, dense


def is_gated(config: ViTConfig) -> bool:
    """Return whether the MLP is a SwiGLU (the giant model)."""
    return config.activation == "swiglu"


REPLACED = ("registers", "blocks.{i}.mlp.up.", "blocks.{i}.mlp.down.")
RULES = (
    *(rule for rule in timm.RULES if not rule.target.startswith(REPLACED)),
    Rule("register_tokens", "registers"),
    *dense(timm.BLOCK + "mlp.fc1", "blocks.{i}.mlp.up", when=lambda config: not is_gated(config)),
    *dense(timm.BLOCK + "mlp.fc2", "blocks.{i}.mlp.down", when=lambda config: not is_gated(config)),
    *dense(timm.BLOCK + "mlp.w12", "blocks.{i}.mlp.up", when=is_gated),
    *dense(timm.BLOCK + "mlp.w3", "blocks.{i}.mlp.down", when=is_gated),
)
TIMM_NAMES = {"register_tokens": "reg_token"}


def infer_architecture(shapes: Shapes, image_size: tuple[int, int] | None) -> dict:
    """Return the fields of ViTConfig except num_heads. Upstream resizes with antialiasing only with registers."""
    names = {
        name: TIMM_NAMES.get(name, name.replace(".mlp.w12.", ".mlp.fc1.").replace(".mlp.w3.", ".mlp.fc2."))
        for name in shapes
    }
    fields = timm.infer_architecture({new: shapes[name] for name, new in names.items()}, image_size)
    return fields if fields["num_registers"] else fields | {"posemb_resize": "bicubic_offset"}


def rename_key(name: str) -> str:
    """Return an array's name without the chunk of its block."""
    return re.sub(r"^blocks\.\d+\.(\d+)\.", r"blocks.\1.", name)


LAYOUT = replace(
    timm.LAYOUT,
    name="dinov2",
    title="facebookresearch DINOv2, with and without registers",
    rules=RULES,
    infer_architecture=infer_architecture,
    signature_keys=(*timm.LAYOUT.signature_keys[:3], "mask_token", "blocks.0.ls1.gamma"),
    unused=(r"mask_token", r"(dino|ibot)_head\..*"),
    rename_key=rename_key,
    sidecar_family="",
    preprocess=always(IMAGENET),
)
