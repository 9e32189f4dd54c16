"""Where a token is: an absolute table, rotary positions, a relative position bias, or none."""

from vit_jax.position.blocks import NO_POSITIONS, BlockPositions
from vit_jax.position.relative_bias import (
    CLASS_ENTRIES,
    RelativePositions,
    count_distances,
    relative_position_index,
    resize_relative_bias,
)
from vit_jax.position.rotary import Rotary, Rotation, make_rotation
from vit_jax.position.table import RESIZE_METHODS, resize_position_embedding, similarity

__all__ = [
    "CLASS_ENTRIES",
    "NO_POSITIONS",
    "RESIZE_METHODS",
    "BlockPositions",
    "RelativePositions",
    "Rotary",
    "Rotation",
    "count_distances",
    "make_rotation",
    "relative_position_index",
    "resize_position_embedding",
    "resize_relative_bias",
    "similarity",
]
