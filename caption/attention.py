"""Cross-attention as one map per word.

The token at position t + 1 is emitted by query t, so word t + 1 has query t's attention. A word of several WordPieces
has the mean of theirs.

Letters: B batch, h x w image, T text tokens, S image tokens, H heads, L layers, gh x gw grid.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Array, Bool, Float, Int

from caption.outputs import CaptionOutput
from vit_jax import InputError

WordMaps = list[tuple[str, Float[np.ndarray, "gh gw"]]]
Ids = Sequence[int] | Int[Array | np.ndarray, " t"]


@runtime_checkable
class WordTokenizer(Protocol):
    """The part of a tokenizer that word maps need."""

    def words(self, tokens: Ids, /) -> list[tuple[str, list[int]]]:
        """Return the words up to the end token, which comes last, each with its positions in the tokens."""
        ...


def content_size(image_mask: Bool[Array | np.ndarray, "h w"], grid: tuple[int, int]) -> tuple[int, int]:
    """Return the (rows, columns) of the grid that hold content, for an image in the top left corner of its mask."""
    mask = np.asarray(image_mask)
    (h, w), (gh, gw) = mask.shape, grid
    rows, columns = int(mask.any(axis=1).sum()), int(mask.any(axis=0).sum())
    return -(-rows // -(-h // gh)), -(-columns // -(-w // gw))


def word_attention(
    output: CaptionOutput,
    tokens: Ids,
    tokenizer: WordTokenizer,
    *,
    layer: int = -1,
    head: int | None = None,
    item: int = 0,
    content: tuple[int, int] | None = None,
) -> WordMaps:
    """Return each word of a caption with its cross-attention: [(word, map [gh, gw])]. The end token is the last word.

    output:  of forward_with_attention on the caption's tokens, start and end included.
    tokens:  [T], of this item; those after the end token are ignored.
    layer:   of the decoder, counted from 0 or from the end.
    head:    one head, or None for the mean.
    item:    index in the batch.
    content: (rows, columns) of the grid to return, which cuts off padding: see content_size. None keeps the grid.

    Maps are at least 0 and sum to 1 over the full grid. Raises InputError for an unknown layer, head or item, a content
    outside the grid, and tokens that do not match the output.
    """
    cross = output.cross_attention
    layers, batch, heads = cross.shape[:3]
    _check_index("layer", layer, -layers, layers)
    _check_index("item", item, -batch, batch)
    if head is not None:
        _check_index("head", head, -heads, heads)
    weights = np.asarray(cross[layer, item])
    fused = weights.mean(axis=0) if head is None else weights[head]
    return group_word_maps(fused, tokens, tokenizer, output.grid, content=content)


def group_word_maps(
    rows: Float[np.ndarray, "queries s"],
    tokens: Ids,
    tokenizer: WordTokenizer,
    grid: tuple[int, int],
    *,
    content: tuple[int, int] | None = None,
) -> WordMaps:
    """Group the rows of any method, one per query, into maps of words; arguments as in word_attention.

    Rows after the last word's are ignored: tokens may be the part of a padded text that has words.
    """
    height, width = grid if content is None else content
    if not (0 < height <= grid[0] and 0 < width <= grid[1]):
        raise InputError(f"content of {height}x{width} is no part of the grid, {grid[0]}x{grid[1]}")
    words = tokenizer.words(tokens)
    last = max((position for _, positions in words for position in positions), default=0)
    if last > rows.shape[0]:
        raise InputError(f"{last + 1} tokens, but the output is for {rows.shape[0]}; give the output for these tokens")
    maps = []
    for word, positions in words:
        heat = rows[[position - 1 for position in positions if position > 0]].mean(axis=0)
        maps.append((word, heat.reshape(grid)[:height, :width]))
    return maps


def _check_index(name: str, value: int, low: int, high: int) -> None:
    if not low <= value < high:
        raise InputError(f"no {name} {value}: there are {high}, counted 0 to {high - 1} or from the end")
