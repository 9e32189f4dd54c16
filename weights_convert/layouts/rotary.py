"""How families rotate queries and keys. No array shows it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from vit_jax import InputError
from vit_jax.position import Rotary
from weights_convert.formats import LazyArray

DINOV3 = Rotary()
# EVA-02 was pretrained at 224 with patches of 14; timm's own models keep its grid.
EVA = Rotary("interleaved", 10_000.0, coordinates="index", reference_grid=(16, 16))
ROPE_VIT = Rotary("interleaved", 100.0, coordinates="index", axes="xy")  # https://arxiv.org/abs/2403.13298
MIXED = "a RoPE-ViT with learned (mixed) frequencies, which are not supported; its axial variants are"
# (width -> heads) of DINOv3, https://arxiv.org/abs/2508.10104, table 2, and of EUPE's smallest.
DINOV3_HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 20, 4096: 32}
PERIODS = "rope_embed.periods"


def perception(grid: tuple[int, int]) -> Rotary:
    """Return the Perception Encoder's (https://arxiv.org/abs/2504.13181): that of the grid that it was trained at."""
    return replace(EVA, offset=1.0, reference_grid=grid, axes="xy")


def dinov3_heads(width: int) -> dict[str, int]:
    """Return the number of heads of a published DINOv3 as a config field; {} for another width."""
    return {"num_heads": DINOV3_HEADS[width]} if width in DINOV3_HEADS else {}


def read_periods(arrays: Mapping[str, LazyArray], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the rotation with the periods as a file stores them, and the heads that they imply; {} without them.

    Raises InputError for periods that are not finite and positive.
    """
    if PERIODS not in arrays:
        return {}
    periods = np.asarray(arrays[PERIODS].read(), np.float64)
    if periods.ndim != 1 or not periods.size or fields["width"] % (4 * periods.size):
        raise InputError(f"{PERIODS} has shape {periods.shape}, which no heads of a width of {fields['width']} have")
    rotary = replace(fields["rotary"], periods=tuple(periods.tolist()))
    return {"rotary": rotary, "num_heads": fields["width"] // (4 * periods.size)}
