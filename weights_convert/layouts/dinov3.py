"""facebookresearch's DINOv3 (https://github.com/facebookresearch/dinov3), and EUPE, which has the same names.

Its names are timm's except for the registers ("storage_tokens"), the SwiGLU of separate layers and two buffers: the
periods of the rotation, which training rounded to bfloat16 and this reads as they are, and a mask that holds the keys'
bias at zero, whose entries some files leave NaN. Pooled by [class].
"""

import re
from dataclasses import replace

import numpy as np

from vit_jax import ViTConfig
from weights_convert.layouts import rotary, timm
from weights_convert.layouts.dinov2 import is_gated
from weights_convert.layouts.dinov2 import rename_key as rename_block
from weights_convert.layouts.inference import Shapes, count_layers
from weights_convert.layouts.preprocessing import SQUASH_HF, always
from weights_convert.rules import FUSED_GATE, FUSED_GATE_BIAS, Rule, dense

MLP = timm.BLOCK + "mlp."
SIZE = (224, 224)
REPLACED = ("registers", "blocks.{i}.mlp.up.", "blocks.{i}.mlp.down.")
RULES = (
    *(rule for rule in timm.RULES if not rule.target.startswith(REPLACED)),
    Rule("storage_tokens", "registers"),
    *dense(MLP + "fc1", "blocks.{i}.mlp.up", when=lambda config: not is_gated(config)),
    *dense(MLP + "fc2", "blocks.{i}.mlp.down", when=lambda config: not is_gated(config)),
    Rule((MLP + "w1.weight", MLP + "w2.weight"), "blocks.{i}.mlp.up.kernel", FUSED_GATE, when=is_gated),
    Rule((MLP + "w1.bias", MLP + "w2.bias"), "blocks.{i}.mlp.up.bias", FUSED_GATE_BIAS, when=is_gated),
    *dense(MLP + "w3", "blocks.{i}.mlp.down", when=is_gated),
)
MASK = "blocks.{i}.attn.qkv.bias_mask"


def infer_architecture(shapes: Shapes, image_size: tuple[int, int] | None) -> dict:
    """Return the fields of ViTConfig. The image size is no property of the arrays: 224, at which training began."""
    width, channels, ph, pw = shapes["patch_embed.proj.weight"]
    gated = "blocks.0.mlp.w3.weight" in shapes
    return dict(
        image_size=image_size or SIZE,
        patch_size=(ph, pw),
        width=width,
        depth=count_layers(shapes, timm.BLOCK),
        mlp_dim=shapes[f"blocks.0.mlp.{'w3' if gated else 'fc2'}.weight"][1],
        num_classes=0,
        in_channels=channels,
        num_registers=shapes["storage_tokens"][1],
        position_table=False,
        rotary=rotary.DINOV3,
        pooling="cls",
        layer_scale=True,
        activation="swiglu" if gated else "gelu",
        qkv_bias="blocks.0.attn.qkv.bias" in shapes,
        key_bias=MASK.replace("{i}", "0") not in shapes,
        norm_eps=1e-5,
        **rotary.dinov3_heads(width),
    )


def export_buffers(config: ViTConfig) -> dict[str, np.ndarray]:
    """Return the periods, float32, and the mask of each block's bias."""
    if config.rotary is None:
        return {}
    arrays = {rotary.PERIODS: config.rotary.periods_for(config.head_size).astype(np.float32)}
    if config.qkv_bias and not config.key_bias:
        mask = np.repeat(np.array([1, 0, 1], np.float32), config.heads_width)
        arrays |= {MASK.replace("{i}", str(layer)): mask for layer in range(config.depth)}
    return arrays


def stored_periods(config: ViTConfig) -> np.ndarray | None:
    """Return None: read_periods has read them."""
    return None


LAYOUT = replace(
    timm.LAYOUT,
    name="dinov3",
    title="facebookresearch DINOv3 and EUPE",
    rules=RULES,
    infer_architecture=infer_architecture,
    signature_keys=(
        "storage_tokens",
        "patch_embed.proj.weight",
        "blocks.0.attn.qkv.weight",
        "blocks.0.ls1.gamma",
        "norm.weight",
    ),
    unused=(r"mask_token", r"(dino|ibot)_head\..*", r"projectors\..*", r"local_cls_norm\..*"),
    rename_key=rename_block,
    export_extra=export_buffers,
    sidecar_family="",
    preprocess=always(SQUASH_HF),
    read_fields=rotary.read_periods,
    buffers={re.escape(rotary.PERIODS): stored_periods, r"blocks\.\d+\.attn\.qkv\.bias_mask": stored_periods},
    assumes=("rotary",),
)
