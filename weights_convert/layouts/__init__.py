"""Layouts of foreign checkpoints: one table of rules for each family, in LAYOUTS by name."""

from typing import Literal

from weights_convert.layouts import (
    aimv2,
    dinov3,
    flax,
    huggingface_beit,
    huggingface_clip,
    huggingface_dinov2,
    huggingface_dinov3,
    huggingface_vit,
    timm_eva,
)
from weights_convert.layouts.catr import LAYOUT as CATR
from weights_convert.layouts.dinov2 import LAYOUT as DINOV2
from weights_convert.layouts.google import LAYOUT as GOOGLE
from weights_convert.layouts.layout import Layout
from weights_convert.layouts.lukemelas import LAYOUT as LUKEMELAS
from weights_convert.layouts.openai_clip import LAYOUT as OPENAI_CLIP
from weights_convert.layouts.simple_vit import LAYOUT as SIMPLE_VIT
from weights_convert.layouts.timm import LAYOUT as TIMM
from weights_convert.layouts.torch_encoder import LAYOUT as TORCH_ENCODER
from weights_convert.layouts.torchvision import LAYOUT as TORCHVISION
from weights_convert.layouts.unsupported import explain_unsupported
from weights_convert.layouts.vit_pytorch import LAYOUT as VIT_PYTORCH

LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (
        LUKEMELAS,
        TIMM,
        timm_eva.EVA,
        timm_eva.PERCEPTION,
        timm_eva.BEIT,
        aimv2.TIMM,
        DINOV2,
        dinov3.LAYOUT,
        GOOGLE,
        huggingface_vit.VIT,
        huggingface_dinov2.LAYOUT,
        huggingface_dinov3.LAYOUT,
        huggingface_beit.LAYOUT,
        huggingface_clip.CLIP,
        huggingface_clip.SIGLIP,
        aimv2.HUGGING_FACE,
        flax.VIT,
        flax.DINOV2,
        flax.CLIP,
        OPENAI_CLIP,
        TORCHVISION,
        VIT_PYTORCH,
        SIMPLE_VIT,
        TORCH_ENCODER,
        CATR,
    )
}
# Literals, so that type checkers know which model convert returns.
ImageLayoutName = Literal[
    "lukemelas",
    "timm",
    "timm_eva",
    "timm_pe",
    "beit",
    "timm_aimv2",
    "dinov2",
    "dinov3",
    "google",
    "hf_vit",
    "hf_dinov2",
    "hf_dinov3",
    "hf_beit",
    "hf_clip",
    "hf_siglip",
    "hf_aimv2",
    "flax_vit",
    "flax_dinov2",
    "flax_clip",
    "openai_clip",
    "torchvision",
    "vit_pytorch",
    "simple_vit",
    "torch_encoder",
]

__all__ = ["LAYOUTS", "ImageLayoutName", "Layout", "explain_unsupported"]
