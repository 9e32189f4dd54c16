"""The pass through a vision transformer's blocks, and the intermediate values that a caller asks for.

Letters: B batch, N tokens, H heads, D width.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Float

from vit_jax._xla import can_truncate_last_block
from vit_jax.attention import Key
from vit_jax.block import Block
from vit_jax.edits import NO_EDIT, Edit, edit_tokens
from vit_jax.execution import DEFAULT_EXECUTION, BlockExecution, apply_blocks
from vit_jax.position import NO_POSITIONS, BlockPositions

BlockRandomness = tuple[Key | None, jax.Array | None]  # a block's key and its drop-path rate
BlockArguments = tuple[Key | None, jax.Array | None, Edit]
AttentionFold = Callable[[Any, int, Any], Any]  # (state, layer, weights [B, H, N, N]) -> state


class BlocksOutput(NamedTuple):
    """What run_blocks returns.

    tokens:    [B, N, D] that leave the last block; [B, num_queries, D] when limited.
    attention: the last state of the fold; by default {layer: weights [B, H, N, N]}.
    outputs:   when asked for, the tokens [B, N, D] that enter the first block and leave each block; else ().
    """

    tokens: Float[Array, "b n d"]
    attention: Any
    outputs: tuple[Float[Array, "b n d"], ...]


def keep_by_layer(state: dict[int, Any], layer: int, weights: Any) -> dict[int, Any]:
    """Add a layer's attention weights to those of the layers before it."""
    return {**state, layer: weights}


def run_blocks(
    blocks: Sequence[Block],
    tokens: Float[Array, "b n d"],
    randomness: Sequence[BlockRandomness],
    *,
    positions: BlockPositions = NO_POSITIONS,
    layers: Sequence[int] = (),
    fold: AttentionFold = keep_by_layer,
    initial: Any = None,
    perturbations: Mapping[int, jax.Array] | None = None,
    return_outputs: bool = False,
    num_queries: int | None = None,
    edit: Edit = NO_EDIT,
    execution: BlockExecution = DEFAULT_EXECUTION,
) -> BlocksOutput:
    """Apply the blocks in turn. Every forward pass of this library is this one.

    positions:      of the tokens, for every block.
    layers:         compute the attention weights of these layers (0 to depth - 1); the others stay on the fused path.
    fold:           (state, layer, weights) -> state, called for these layers in the order of the blocks. A fold that
                    reduces the weights avoids holding those of several layers at once.
    initial:        the first state; None: {}.
    perturbations:  by layer, an array [B, H, N, N] to add to its weights; see attend().
    return_outputs: return the tokens that enter the first block and leave each block.
    num_queries:    compute only the first so many tokens of the last block, where the backend can.
    edit:           of heads, branches and tokens; see Edit.
    execution:      blocks of which nothing is asked are scanned together; the others run on their own.
    """
    depth, added = len(blocks), perturbations or {}
    if edit is not NO_EDIT or not can_truncate_last_block(tokens.dtype, execution.workarounds):
        num_queries = None

    arguments = [(*draws, edit.of_block(layer)) for layer, draws in enumerate(randomness)]
    tokens = edit_tokens(tokens, edit.of_embedding())

    def apply(block: Block, carry: Any, argument: BlockArguments, *, layer: int | None) -> Any:
        x, attention, outputs = carry
        key, rate, block_edit = argument
        x, weights = block(
            x,
            positions=positions,
            return_weights=layer in layers,
            perturbation=None if layer is None else added.get(layer),
            key=key,
            drop_path_rate=rate,
            num_queries=num_queries if layer == depth - 1 else None,
            edit=block_edit,
            workarounds=execution.workarounds,
        )
        x = edit_tokens(x, block_edit)
        if layer is not None and weights is not None:
            attention = fold(attention, layer, weights)
        return x, attention, (*outputs, x) if return_outputs else outputs

    truncated = () if num_queries is None else (depth - 1,)
    alone = {*layers, *added, *truncated, *(range(depth) if return_outputs else ())}
    carry = (tokens, {} if initial is None else initial, (tokens,) if return_outputs else ())
    for group in _split_range(depth, alone):
        is_alone = group.start in alone
        step = partial(apply, layer=group.start if is_alone else None)
        span = slice(group.start, group.stop)
        how = replace(execution, scan=execution.scan and not is_alone)
        carry = apply_blocks(step, blocks[span], carry, arguments[span], how)
    return BlocksOutput(*carry)


def _split_range(depth: int, alone: set[int]) -> list[range]:
    """Split 0 to depth - 1 into ranges: the indices in `alone` by themselves, those between them together."""
    edges = sorted({0, depth, *alone, *(index + 1 for index in alone)})
    return [range(start, stop) for start, stop in itertools.pairwise(edges)]
