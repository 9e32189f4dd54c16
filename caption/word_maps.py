"""Word maps of generated captions, in batches: cross-attention or relevance of each word.

Letters: B batch, h x w the model's input, T text tokens, L layers, H heads, S image tokens.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Int

from caption.attention import WordMaps, content_size, group_word_maps, word_attention
from caption.model import CaptionTransformer, forward_with_attention
from caption.outputs import CaptionOutput
from caption.preprocess import PaddedBatch
from caption.relevance import word_relevance
from caption.tokenizer import Tokenizer
from vit_jax import InputError

WORD_MAP_METHODS = ("attention", "relevance")
LENGTH_STEP = 8  # relevance is compiled per length, so texts are padded to a multiple of this


@dataclass(frozen=True)
class MapOptions:
    """The kind of map that every word gets.

    layer, head: of the method "attention"; head None is the mean.
    """

    method: str = "attention"
    layer: int = -1
    head: int | None = None

    def check(self, decoder_layers: int, num_heads: int) -> None:
        """Raise InputError for a layer or head that the decoder does not have."""
        for name, value, count in (("layer", self.layer, decoder_layers), ("head", self.head or 0, num_heads)):
            if not -count <= value < count:
                raise InputError(f"no {name} {value}: the decoder has {count}, counted from 0 or from the end (-1)")

    def resolve(self, decoder_layers: int, num_heads: int) -> "MapOptions":
        """Return the options in one spelling: counted from 0, but the last layer as -1."""
        layer = self.layer % decoder_layers
        head = None if self.head is None else self.head % num_heads
        return replace(self, layer=-1 if layer == decoder_layers - 1 else layer, head=head)


def compute_word_maps(
    model: CaptionTransformer,
    tokenizer: Tokenizer,
    batch: PaddedBatch,
    tokens: Int[np.ndarray, "b t"],
    lengths: Int[np.ndarray, " b"],
    options: MapOptions,
    *,
    count: int,
) -> list[WordMaps]:
    """Return the word maps of the first `count` captions; tokens [B, T] have these lengths."""
    texts = [text[:length] for text, length in zip(tokens, lengths, strict=True)][:count]
    if options.method == "relevance":
        return [_relevance_maps(model, tokenizer, batch, item, text) for item, text in enumerate(texts)]
    is_text = np.arange(tokens.shape[1])[None] < lengths[:, None]
    output = _one_layer_output(model, batch.images, batch.mask, tokens, is_text, layer=options.layer)
    output = output._replace(cross_attention=np.asarray(output.cross_attention))
    return [
        word_attention(
            output,
            text,
            tokenizer,
            head=options.head,
            item=item,
            content=content_size(batch.mask[item], output.grid),
        )
        for item, text in enumerate(texts)
    ]


def _relevance_maps(
    model: CaptionTransformer, tokenizer: Tokenizer, batch: PaddedBatch, item: int, text: Int[np.ndarray, " t"]
) -> WordMaps:
    """Return one caption's relevance maps. The text is padded: later tokens do not change a word's relevance."""
    length = min(-(-len(text) // LENGTH_STEP) * LENGTH_STEP, model.config.max_positions)
    padded = np.zeros((1, length), text.dtype)
    padded[0, : len(text)] = text
    image, mask = batch.images[item : item + 1], batch.mask[item : item + 1]
    rows = np.asarray(word_relevance(model, image, mask, padded))
    grid = jax.eval_shape(lambda m: m.encode(image, mask), model).grid
    return group_word_maps(rows, text.tolist(), tokenizer, grid, content=content_size(mask[0], grid))


@partial(jax.jit, static_argnames=("layer",))
def _one_layer_output(
    model: CaptionTransformer, images: Any, mask: Any, tokens: Any, token_mask: Any, *, layer: int
) -> CaptionOutput:
    """Run forward_with_attention; keep one layer's cross-attention [1, B, H, T, S], drop the rest, which is large."""
    output = forward_with_attention(model, images, mask, tokens, token_mask)
    return output._replace(
        logits=output.logits[..., :0],
        cross_attention=output.cross_attention[layer][None],
        decoder_attention=output.decoder_attention[:0],
        encoder_attention=output.encoder_attention[:0],
    )
