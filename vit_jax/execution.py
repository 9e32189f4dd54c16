"""Running a model's blocks: one after another or in a loop, keeping or working out again what the backward pass needs.

The answers are the same; time to compile, memory and speed are not.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib

from vit_jax.errors import InputError

# What is kept of a block's forward pass: all of it, the products with weights, or the block's input alone.
POLICIES: dict[str, Callable[..., bool] | None] = {
    "none": None,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}


@dataclass(frozen=True)
class BlockExecution:
    """How blocks are run.

    scan:  one block is compiled and looped over: large models compile faster; the blocks' parameters are stacked anew
           in every call, so they take twice their memory while it runs.
    remat: a name of POLICIES. Raises InputError for another.
    """

    scan: bool = False
    remat: str = "none"

    def __post_init__(self) -> None:
        if self.remat not in POLICIES:
            raise InputError(f"unknown remat {self.remat!r}: one of {', '.join(POLICIES)}")


DEFAULT_EXECUTION = BlockExecution()


def compiler_options(*, forward_only: bool = False) -> dict[str, bool | str]:
    """For jax.jit(step, compiler_options=...): passes of XLA that cost more than they give on a CPU are left out.

    Always the one that drops barriers before it fuses, and with them what `settled` and jax.checkpoint ask for. In
    programs without a gradient (forward_only) also the one that makes a sum of many numbers into windows of 32, which
    are not vectorised within a row: a forward pass of B_16 takes 0.94 of the time, at no greater error. In a step it
    pays, for the sums over rows that make the gradients of biases.

    Known of jaxlib 0.10.2; for others, and for accelerators, nothing is changed.
    """
    if jaxlib.__version__ != "0.10.2" or jax.default_backend() != "cpu":
        return {}
    sums = ",tree_reduction_rewriter" if forward_only else ""
    return {"xla_disable_hlo_passes": "cse_barrier_expander" + sums}


def materialize(x: jax.Array) -> jax.Array:
    """x, which the compiler is to work out once, not anew in each thing that it goes into.

    A residual stream is a sum that grows with every block. XLA fuses it into all that reads it, and its CPU compiler
    would work the whole sum out again there: twice the time of a step of B_16. It heeds this in programs compiled with
    compiler_options().
    """
    return jax.lax.optimization_barrier(x)


def apply_blocks(
    apply: Callable[..., Any], blocks: Sequence[Any], x: Any, arguments: Sequence[Any], how: BlockExecution
) -> Any:
    """x through apply(block, x, argument) for each block and its argument, a pytree of arrays or Nones of one shape."""
    if how.remat != "none":
        apply = jax.checkpoint(apply, policy=POLICIES[how.remat], prevent_cse=not how.scan)
    if not (how.scan and blocks):
        for block, argument in zip(blocks, arguments, strict=True):
            x = apply(block, x, argument)
        return x
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *blocks)
    rows = jax.tree.map(lambda *leaves: jnp.stack(leaves), *arguments)
    return jax.lax.scan(lambda x, row: (apply(row[0], x, row[1]), None), x, (stacked, rows))[0]
