"""What the model looked at for every word: the cross-attention of one teacher-forced pass, aligned with the words.

The token at position t + 1 is what query t answered, so word t + 1 is shown with query t's attention. A word of several
WordPieces has their mean.

Letters: B batch, T text tokens, S image tokens, H heads, L layers, gh x gw grid.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Array, Bool, Float, Int

from caption.model import CaptionOutput
from vit_jax import InputError

WordMaps = list[tuple[str, Float[np.ndarray, "gh gw"]]]
Ids = Sequence[int] | Int[Array | np.ndarray, " t"]


@runtime_checkable
class WordTokenizer(Protocol):
    """What a tokenizer must know here."""

    def words(self, tokens: Ids, /) -> list[tuple[str, list[int]]]:
        """The words up to the end token, which comes last, each with its positions in the tokens."""
        ...


def content_size(image_mask: Bool[Array | np.ndarray, "h w"], grid: tuple[int, int]) -> tuple[int, int]:
    """The (rows, columns) of the grid that hold content, of an image in the top left corner of its mask."""
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
    """Each word of a caption with where the decoder looked when it answered it: [(word, heat [gh, gw])].

    output:  of forward_with_attention over the caption's tokens, start and end included.
    tokens:  [T], the item's own; what follows the end token is left out. The end token comes as the last word.
    layer:   of the decoder, from 0 or from the end; head: one of them, or None for their mean.
    item:    which one of the batch.
    content: (rows, columns) of the grid that hold the image, to cut padding off: see content_size. None keeps all.

    Heat is attention: at least 0, and its sum over the whole grid is 1. Raises InputError for a layer, head, item or
    content that there is not, and when the tokens are not those of the output.
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
    rows: Float[np.ndarray, "t s"],
    tokens: Ids,
    tokenizer: WordTokenizer,
    grid: tuple[int, int],
    *,
    content: tuple[int, int] | None = None,
) -> WordMaps:
    """Rows of any method, one for each query, as maps of words: see word_attention."""
    high, wide = grid if content is None else content
    if not (0 < high <= grid[0] and 0 < wide <= grid[1]):
        raise InputError(f"content of {high}x{wide} is no part of the grid, {grid[0]}x{grid[1]}")
    words = tokenizer.words(tokens)
    last = max((place for _, places in words for place in places), default=0)
    if last > rows.shape[0]:
        raise InputError(f"{last + 1} tokens, of an output for {rows.shape[0]}; give the pass over these tokens")
    maps = []
    for word, places in words:
        heat = rows[[place - 1 for place in places if place > 0]].mean(axis=0)
        maps.append((word, heat.reshape(grid)[:high, :wide]))
    return maps


def _check_index(name: str, value: int, low: int, high: int) -> None:
    if not low <= value < high:
        raise InputError(f"no {name} {value}: there are {high}, counted 0 to {high - 1} or from the end")
