"""Layouts of foreign checkpoints: one table of rules for each family, in LAYOUTS by name."""

from typing import Literal

from weights_convert.layouts import huggingface_clip, huggingface_vit, vit_pytorch
from weights_convert.layouts.catr import LAYOUT as CATR
from weights_convert.layouts.dinov2 import LAYOUT as DINOV2
from weights_convert.layouts.google import LAYOUT as GOOGLE
from weights_convert.layouts.layout import Layout
from weights_convert.layouts.lukemelas import LAYOUT as LUKEMELAS
from weights_convert.layouts.openai_clip import LAYOUT as OPENAI_CLIP
from weights_convert.layouts.timm import LAYOUT as TIMM

LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (
        LUKEMELAS,
        TIMM,
        DINOV2,
        GOOGLE,
        huggingface_vit.VIT,
        huggingface_vit.DINOV2,
        huggingface_clip.CLIP,
        huggingface_clip.SIGLIP,
        OPENAI_CLIP,
        vit_pytorch.VIT,
        vit_pytorch.SIMPLE_VIT,
        CATR,
    )
}
# Literals, so that type checkers know which model convert returns.
ImageLayoutName = Literal[
    "lukemelas",
    "timm",
    "dinov2",
    "google",
    "hf_vit",
    "hf_dinov2",
    "hf_clip",
    "hf_siglip",
    "openai_clip",
    "vit_pytorch",
    "simple_vit",
]

__all__ = ["LAYOUTS", "ImageLayoutName", "Layout"]
