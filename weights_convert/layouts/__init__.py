"""One module for each family of checkpoints."""

from weights_convert.layouts.layout import Layout
from weights_convert.layouts.lukemelas import LAYOUT as LUKEMELAS

LAYOUTS: dict[str, Layout] = {layout.name: layout for layout in (LUKEMELAS,)}

__all__ = ["LAYOUTS", "Layout"]
