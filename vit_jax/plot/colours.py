"""Colours of maps over pictures. Their opacity follows the heat.

Where a map is low the picture is unchanged, neither darker nor greyer. Signed maps have two hues and are transparent at
zero. Both colour maps are monotonic in lightness away from their transparent end.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Array, Float

from vit_jax.errors import InputError
from vit_jax.explain.heatmap import colour_table

ALPHA = 0.9  # where the heat is greatest; the opacity is proportional to the heat
COLOURS, SIGNED_COLOURS = "plasma", "RdBu_r"  # signed: blue below zero, red above

Map = Float[Array | np.ndarray, "gh gw"]


@dataclass(frozen=True)
class HeatScale:
    """The values that the colours span: low is transparent and high has the highest opacity.

    is_signed: symmetric around zero, which is transparent; both ends have the highest opacity.
    Raises InputError when low exceeds high, or a signed scale is not symmetric.
    """

    low: float
    high: float
    is_signed: bool = False

    def __post_init__(self) -> None:
        if not self.low <= self.high or (self.is_signed and self.low != -self.high):
            raise InputError(f"no colour scale from {self.low:g} to {self.high:g}")

    def levels(self, values: Any) -> Float[np.ndarray, "..."]:
        """Scale values linearly to [0, 1], or [-1, 1] if signed, and clip them. A scale of no width gives 0."""
        values, span = np.asarray(values, np.float64), self.high - self.low
        if not span:
            return np.zeros(values.shape)
        return (values / self.high if self.is_signed else (values - self.low) / span).clip(
            -1 if self.is_signed else 0, 1
        )


def fit_scale(maps: Sequence[Map], *, is_signed: bool = False) -> HeatScale:
    """Return the narrowest scale that holds every finite value of the maps."""
    values = np.concatenate([np.asarray(heat, np.float64).ravel() for heat in maps])
    values = values[np.isfinite(values)]
    if not values.size:
        return HeatScale(0.0, 0.0, is_signed)
    if is_signed:
        limit = float(np.abs(values).max())
        return HeatScale(-limit, limit, is_signed=True)
    return HeatScale(float(values.min()), float(values.max()))


def colour_heat(
    values: Float[Array | np.ndarray, "..."], scale: HeatScale, alpha: float = ALPHA
) -> Float[np.ndarray, "... 4"]:
    """Return the colour and opacity of each value, RGBA in [0, 1]. The opacity is at most `alpha`.

    Raises InputError when alpha is not in [0, 1].
    """
    if not 0 <= alpha <= 1:
        raise InputError(f"an opacity lies in [0, 1], not {alpha}")
    levels = scale.levels(values)
    # The pale colours around the middle of the signed table are left out: there the opacity fades already.
    positions = 0.5 + np.sign(levels) * (1 + np.abs(levels)) / 4 if scale.is_signed else levels
    table = colour_table(SIGNED_COLOURS if scale.is_signed else COLOURS)
    colours = table[np.round(255 * positions).astype(int)]
    return np.concatenate([colours, alpha * np.abs(levels)[..., None]], axis=-1)


def blend_heat(
    picture: Float[np.ndarray, "h w 3"],
    heat: Float[Array | np.ndarray, "h w"],
    scale: HeatScale,
    alpha: float = ALPHA,
) -> Float[np.ndarray, "h w 3"]:
    """Blend a map in colour over a picture of the same size, RGB in [0, 1]; see colour_heat."""
    colours = colour_heat(heat, scale, alpha)
    opacity = colours[..., 3:]
    return (1 - opacity) * picture + opacity * colours[..., :3]
