"""Other forms in which files store the arrays of a known layout: transposed, flattened, one for each head."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from vit_jax import InputError
from weights_convert.formats import LazyArray

Form = Callable[[str, LazyArray, Mapping[str, Any]], LazyArray]  # (name, array, settings of ViTConfig) -> array


def transpose(name: str, array: LazyArray, settings: Mapping[str, Any]) -> LazyArray:
    """Swap the last two axes: a position table [1, D, N], a dense layer [in, out]."""
    if len(array.shape) < 2:
        raise InputError(f"{name} has shape {array.shape}; transposed needs two axes")
    shape = (*array.shape[:-2], array.shape[-1], array.shape[-2])
    return LazyArray(shape, array.dtype, lambda: np.swapaxes(array.read(), -1, -2))


def unflatten_patches(name: str, array: LazyArray, settings: Mapping[str, Any], *, order: str) -> LazyArray:
    """Reshape a dense patch embedding [D, pixels] to a convolution [D, c, ph, pw].

    order: of the axes in the pixels, as "hwc". The channels are settings' in_channels (default: 3), the patch
    settings' patch_size (default: square).

    Raises InputError if the pixels do not have these axes.
    """
    channels = settings.get("in_channels", 3)
    pixels = array.shape[-1] if len(array.shape) == 2 else 0
    side = math.isqrt(pixels // channels)
    height, width = settings.get("patch_size", (side, side))
    if not pixels or height * width * channels != pixels:
        raise InputError(
            f"{name} of shape {array.shape} is no patch embedding [width, pixels] of {channels} channels; state "
            "in_channels and patch_size in [settings]"
        )
    lengths = {"h": height, "w": width, "c": channels}

    def read() -> np.ndarray:
        split = array.read().reshape(-1, *(lengths[axis] for axis in order))
        return split.transpose(0, *(1 + order.index(axis) for axis in "chw"))

    return LazyArray((array.shape[0], channels, height, width), array.dtype, read)


def join_heads(name: str, parts: Mapping[int, LazyArray]) -> LazyArray:
    """Concatenate the arrays of heads 0, 1, ... along the first axis. Raises InputError for a gap, or other shapes."""
    heads = [parts[head] for head in sorted(parts)]
    if sorted(parts) != list(range(len(parts))) or len({(part.shape, part.dtype) for part in heads}) > 1:
        raise InputError(f"{name} needs arrays of one shape for the heads 0 to {len(parts) - 1}, not {sorted(parts)}")
    first = heads[0]
    if not first.shape:
        raise InputError(f"{name}: the arrays of heads are single numbers")
    shape = (len(heads) * first.shape[0], *first.shape[1:])
    return LazyArray(shape, first.dtype, lambda: np.concatenate([part.read() for part in heads]))


FORMS: dict[str, Form] = {
    "transposed": transpose,
    "linear_hwc": partial(unflatten_patches, order="hwc"),
    "linear_chw": partial(unflatten_patches, order="chw"),
}
