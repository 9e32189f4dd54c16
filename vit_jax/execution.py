"""How a model's blocks are executed: unrolled or scanned, saving or recomputing what the backward pass needs.

Values stay the same; compile time, memory and speed do not.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from vit_jax.errors import InputError
from vit_jax.suggest import describe_unknown

# What is saved of a block's forward pass: everything, the products with weights, or the block's input alone.
POLICIES: dict[str, Callable[..., bool] | None] = {
    "none": None,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}


@dataclass(frozen=True)
class BlockExecution:
    """How blocks are executed.

    scan:        compile one block and loop over it: large models compile faster. Every call stacks the blocks'
                 parameters, so they take twice their memory while it runs.
    remat:       what the backward pass recomputes: a name of POLICIES.
    workarounds: use the helpers of vit_jax._xla. False gives a plain program, for export and for other compilers.

    Raises InputError for an unknown remat.
    """

    scan: bool = False
    remat: str = "none"
    workarounds: bool = True

    def __post_init__(self) -> None:
        if self.remat not in POLICIES:
            raise InputError(describe_unknown("remat", self.remat, POLICIES))


DEFAULT_EXECUTION = BlockExecution()
PLAIN_EXECUTION = BlockExecution(workarounds=False)


def apply_blocks(
    apply: Callable[..., Any], blocks: Sequence[Any], x: Any, arguments: Sequence[Any], execution: BlockExecution
) -> Any:
    """Return x after x = apply(block, x, argument) for each block and its argument.

    x and the arguments are pytrees of arrays or Nones. The arguments share one structure; under scan x keeps its own.
    """
    if execution.remat != "none":
        apply = jax.checkpoint(apply, policy=POLICIES[execution.remat], prevent_cse=not execution.scan)
    if not (execution.scan and blocks):
        for block, argument in zip(blocks, arguments, strict=True):
            x = apply(block, x, argument)
        return x
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *blocks)
    rows = jax.tree.map(lambda *leaves: jnp.stack(leaves), *arguments)
    return jax.lax.scan(lambda x, row: (apply(row[0], x, row[1]), None), x, (stacked, rows))[0]
