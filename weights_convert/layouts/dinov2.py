"""facebookresearch's DINOv2 (https://github.com/facebookresearch/dinov2): with and without registers, MLP and SwiGLU.
Google's TIPSv2 (https://arxiv.org/abs/2604.12012), which has the same names, and one register.

Its names are timm's except for the registers, the SwiGLU and a mask token that only training used. The position table
has an entry for [class]. Training files group the blocks in chunks ("blocks.1.7." is block 7) and hold projection
heads. transformers names TIPSv2's MLP c_fc and c_proj in files. The first DINO uses timm's names throughout: timm.py.
"""

import re
from dataclasses import replace

import numpy as np

from vit_jax import ViTConfig
from vit_jax.preprocess import Preprocess
from weights_convert.layouts import timm
from weights_convert.layouts.inference import Shapes
from weights_convert.layouts.preprocessing import IMAGENET, TIPSV2
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
TIPSV2_RESIZE = "bilinear_antialias"
TIMM_NAMES = {"register_tokens": "reg_token"}


def infer_architecture(shapes: Shapes, image_size: tuple[int, int] | None) -> dict:
    """Return the fields of ViTConfig except num_heads.

    DINOv2 resizes positions with antialiasing with registers only; TIPSv2 bilinearly with antialiasing.
    """
    names = {
        name: TIMM_NAMES.get(name, name.replace(".mlp.w12.", ".mlp.fc1.").replace(".mlp.w3.", ".mlp.fc2."))
        for name in shapes
    }
    fields = timm.infer_architecture({new: shapes[name] for name, new in names.items()}, image_size)
    resize = TIPSV2_RESIZE if is_tipsv2(shapes) else "bicubic_antialias"
    return fields | {"posemb_resize": resize if fields["num_registers"] else "bicubic_offset"}


def is_tipsv2(shapes: Shapes) -> bool:
    """Return whether a model is a TIPSv2: it has one register, DINOv2 none or four."""
    return "register_tokens" in shapes and shapes["register_tokens"][1] == 1


def infer_preprocess(shapes: Shapes) -> Preprocess:
    """Return the preprocess of TIPSv2 or of DINOv2."""
    return TIPSV2 if is_tipsv2(shapes) else IMAGENET


def rename_key(name: str) -> str:
    """Return an array's name without the chunk of its block, its MLP as DINOv2 names it."""
    name = re.sub(r"\.mlp\.c_(fc|proj)\.", lambda m: f".mlp.{dict(fc='fc1', proj='fc2')[m[1]]}.", name)
    return re.sub(r"^blocks\.\d+\.(\d+)\.", r"blocks.\1.", name)


def unused_mask(config: ViTConfig) -> dict[str, np.ndarray]:
    """Return the token that only training used, which the original expects."""
    return {"mask_token": np.zeros((1, config.width), np.float32)}


LAYOUT = replace(
    timm.LAYOUT,
    name="dinov2",
    title="facebookresearch DINOv2, with and without registers; TIPSv2",
    rules=RULES,
    infer_architecture=infer_architecture,
    signature_keys=(*timm.LAYOUT.signature_keys[:3], "mask_token", "blocks.0.ls1.gamma"),
    unused=(r"mask_token", r"(dino|ibot)_head\..*"),
    rename_key=rename_key,
    export_extra=unused_mask,
    sidecar_family="hf",
    preprocess=infer_preprocess,
)
