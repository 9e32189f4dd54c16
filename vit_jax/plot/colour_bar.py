"""The colour bars of a figure of maps, below its panels: one for maps without a sign, one for signed maps."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from vit_jax.plot.colours import HeatScale, colour_heat
from vit_jax.plot.files import FONT

BAR_HEIGHT = 0.42  # inches, with ticks and label
BAR_LENGTH, BAR_THICKNESS, BAR_PAD = 2.4, 0.09, 0.04  # inches
NUM_TICKS = 4


class ColourBar(NamedTuple):
    """A scale with numbers, or, if it stands for maps on several scales, one from lowest to highest."""

    scale: HeatScale
    label: str
    has_numbers: bool

    def ticks(self) -> tuple[list[float], list[str]]:
        """Return the ticks, in values of the scale, and their texts. A signed scale has a tick at zero."""
        from matplotlib.ticker import MaxNLocator

        low, high = self.scale.low, self.scale.high
        if self.has_numbers:
            values = [float(v) for v in MaxNLocator(NUM_TICKS).tick_values(low, high) if low <= v <= high]
            return values, [f"{value:.4g}" for value in values]
        if self.scale.is_signed:
            return [low, 0.0, high], ["negative", "0", "positive"]
        return [low, high], ["lowest", "highest"]


def list_colour_bars(maps: Sequence[tuple[str, HeatScale]], several: str) -> list[ColourBar]:
    """Return the bars for maps, given as their quantities and scales. several: the label for maps on several scales."""
    bars = []
    for is_signed in (False, True):
        scales = {(quantity, scale) for quantity, scale in maps if scale.is_signed == is_signed}
        if len(scales) == 1:
            ((quantity, scale),) = scales
            bars.append(ColourBar(scale, quantity, has_numbers=True))
        elif scales:
            bars.append(ColourBar(HeatScale(-1.0 if is_signed else 0.0, 1.0, is_signed), several, has_numbers=False))
    return bars


def draw_colour_bar(figure: Any, axes: Any, bar: ColourBar, size: tuple[float, float], alpha: float) -> None:
    """Draw a bar below the axes. Its colours are those of a map over white. size: of the axes, in inches."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    low, high = bar.scale.low, bar.scale.high
    colours = colour_heat(np.linspace(low, high, 256), bar.scale, alpha)
    opacity = colours[:, 3:]
    mappable = ScalarMappable(Normalize(low, high), ListedColormap(opacity * colours[:, :3] + (1 - opacity)))
    width, height = size
    length = min(width - 0.4, BAR_LENGTH)
    sizes = dict(shrink=length / width, aspect=length / BAR_THICKNESS, pad=BAR_PAD / height)
    drawn = figure.colorbar(mappable, ax=axes, location="bottom", **sizes)
    values, texts = bar.ticks()
    drawn.set_ticks(values, labels=texts, fontsize=FONT)
    drawn.ax.tick_params(length=2, pad=2)
    drawn.outline.set_linewidth(0.5)
    drawn.set_label(bar.label, fontsize=FONT, labelpad=1, parse_math=False)
