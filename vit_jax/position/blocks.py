"""What every block of a model needs of the positions of one image size."""

from typing import NamedTuple

import jax
from jaxtyping import Array, Float

from vit_jax.position.relative_bias import RelativePositions
from vit_jax.position.rotary import Rotation


class BlockPositions(NamedTuple):
    """Positions inside the blocks.

    rotation: of queries and keys; None without rotary positions.
    bias:     [1, H, N, N], added to the scores of every block; None if no table is shared.
    relative: how a block reads its bias from a table of its own.
    """

    rotation: Rotation | None = None
    bias: Float[Array, "1 h n n"] | None = None
    relative: RelativePositions | None = None

    def bias_from(self, table: jax.Array | None) -> Float[Array, "1 h n n"] | None:
        """Return the bias of a block with this table of its own, [T, H], or without one."""
        return self.bias if table is None or self.relative is None else self.relative.bias(table)


NO_POSITIONS = BlockPositions()
