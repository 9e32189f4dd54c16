"""One module for each family of checkpoints."""

from weights_convert.layouts import huggingface, vit_pytorch
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
        huggingface.VIT,
        huggingface.DINOV2,
        huggingface.CLIP,
        huggingface.SIGLIP,
        OPENAI_CLIP,
        vit_pytorch.VIT,
        vit_pytorch.SIMPLE_VIT,
        CATR,
    )
}

__all__ = ["LAYOUTS", "Layout"]
