"""A captioner ready for use: a model with its vocabulary, pictures made ready for it, captions and their words' maps.

Letters: B batch, h x w the model's input, H x W a picture, K captions of an image, T text tokens, V vocabulary.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

import caption
from caption.attention import WordMaps, content_size, group_word_maps, word_attention
from caption.plot import MAX_SIDE
from caption.preprocess import PaddedBatch, pad_batch
from caption.tokenizer import Tokenizer
from vit_jax import InputError
from vit_jax.checkpoint import to_arrays
from vit_jax.data.batches import pad_batch_to

WORD_MAP_METHODS = ("attention", "relevance")
STEP = 8  # texts for relevance, which is compiled for every length, are filled up to a multiple of this


@dataclass(frozen=True)
class SearchOptions:
    """How captions are looked for, as caption.generate takes it."""

    max_length: int
    num_beams: int = 1
    n_best: int = 1
    length_penalty: float = 0.0
    no_repeat_ngram: int = 0


@dataclass(frozen=True)
class MapOptions:
    """Which map every word has. layer and head are of the method attention; head None is their mean."""

    method: str = "attention"
    layer: int = -1
    head: int | None = None


class PreparedImage(NamedTuple):
    """A picture made ready. pixels: normalised, at the model's scale; shown: what the model sees, at most LARGEST."""

    pixels: Float32[np.ndarray, "h w 3"]
    shown: UInt8[np.ndarray, "H W 3"]


class ScoredCaption(NamedTuple):
    """A caption and its natural log-probability, summed over its tokens."""

    caption: str
    log_probability: float


class CaptionResult(NamedTuple):
    """What a captioner says of a picture: captions, best first, and the best one's words with their maps, if asked."""

    captions: list[ScoredCaption]
    words: WordMaps


class Captioner:
    """A model, its vocabulary, and what is asked of it. look None leaves the maps out.

    Raises InputError for a layer or a head that the model does not have.
    """

    def __init__(
        self, model: caption.CaptionTransformer, tokenizer: Tokenizer, search: SearchOptions, look: MapOptions | None
    ):
        self.model, self.tokenizer, self.search, self.look = model, tokenizer, search, look
        config = model.config
        for name, value, count in (
            ("layer", look.layer if look else 0, config.decoder_layers),
            ("head", look.head if look and look.head is not None else 0, config.num_heads),
        ):
            if not -count <= value < count:
                raise InputError(f"no {name} {value}: the decoder has {count}, counted from 0 or from the end (-1)")
        self.size = config.image_preprocess.size

    def prepare(self, picture: Image.Image) -> PreparedImage:
        """A picture at the model's scale: for a ResNet in its own shape, for a ViT resized and cut as that has it."""
        preprocess = self.model.config.image_preprocess
        pixels, shown = preprocess(picture), preprocess.view(picture).copy()
        shown.thumbnail((MAX_SIDE, MAX_SIDE))
        return PreparedImage(pixels, np.asarray(shown))

    def __call__(self, pictures: Sequence[PreparedImage], batch_size: int) -> list[CaptionResult]:
        """The captions of at most batch_size pictures. One shape serves all, so it is compiled once.

        Raises InputError when the model answers what is no number.
        """
        # Filled up with a picture: the attention over an empty one would be 0 / 0.
        padded, _ = pad_batch_to(batch_size, pictures, pictures[-1])
        batch = pad_batch([picture.pixels for picture in padded], self.size)
        start, end = self.tokenizer.start, self.tokenizer.end
        found = caption.generate(self.model, batch.images, batch.mask, **asdict(self.search), start=start, end=end)
        tokens, log_probs, lengths = (np.asarray(field) for field in found)
        count = len(pictures)
        if not np.isfinite(log_probs[:count, 0]).all():
            raise InputError("the model answers no numbers (NaN); are its weights damaged?")
        words = self._words(batch, tokens[:, 0], lengths[:, 0], count)
        return [
            CaptionResult(
                [
                    ScoredCaption(self.tokenizer.decode(text[:length]), float(value))
                    for text, value, length in zip(tokens[i], log_probs[i], lengths[i], strict=True)
                    if length  # the search may find fewer than it was asked for
                ],
                words[i],
            )
            for i in range(count)
        ]

    def _words(self, batch: PaddedBatch, tokens: np.ndarray, lengths: np.ndarray, count: int) -> list[WordMaps]:
        """The maps of the first `count` items' words, tokens [B, T] of these lengths."""
        if self.look is None:
            return [[] for _ in range(count)]
        texts = [text[:length] for text, length in zip(tokens, lengths, strict=True)][:count]
        if self.look.method == "relevance":
            return [self._relevance(batch, item, text) for item, text in enumerate(texts)]
        written = np.arange(tokens.shape[1])[None] < lengths[:, None]
        output = _looked(self.model, batch.images, batch.mask, tokens, written, layer=self.look.layer)
        output = output._replace(cross_attention=np.asarray(output.cross_attention))
        return [
            word_attention(
                output,
                text,
                self.tokenizer,
                head=self.look.head,
                item=item,
                content=content_size(batch.mask[item], output.grid),
            )
            for item, text in enumerate(texts)
        ]

    def _relevance(self, batch: PaddedBatch, item: int, text: np.ndarray) -> WordMaps:
        """One picture's. The text is filled up: what comes after a word changes nothing of its relevance."""
        length = min(-(-len(text) // STEP) * STEP, self.model.config.max_positions)
        filled = np.zeros((1, length), text.dtype)
        filled[0, : len(text)] = text
        image, mask = batch.images[item : item + 1], batch.mask[item : item + 1]
        rows = np.asarray(caption.word_relevance(self.model, image, mask, filled))
        grid = jax.eval_shape(lambda m: m.encode(image, mask), self.model).grid
        return group_word_maps(rows, text.tolist(), self.tokenizer, grid, content=content_size(mask[0], grid))

    def settings(self) -> dict[str, Any]:
        """What decides every answer, JSON-able; weights and vocabulary by a hash of their content."""
        content = hashlib.sha256()
        for name, array in to_arrays(self.model).items():
            content.update(name.encode())
            content.update(np.ascontiguousarray(array).data)
        vocabulary = hashlib.sha256("\n".join(self.tokenizer.vocabulary).encode()).hexdigest()
        return {"weights": content.hexdigest(), "vocabulary": vocabulary} | asdict(self.search)


@partial(jax.jit, static_argnames=("layer",))
def _looked(
    model: caption.CaptionTransformer, images: Any, mask: Any, tokens: Any, token_mask: Any, *, layer: int
) -> caption.CaptionOutput:
    """forward_with_attention with one layer's cross-attention, [1, B, H, T, S]; the rest is large, and not needed."""
    output = caption.forward_with_attention(model, images, mask, tokens, token_mask)
    return output._replace(
        logits=output.logits[..., :0],
        cross_attention=output.cross_attention[layer][None],
        decoder_attention=output.decoder_attention[:0],
        encoder_attention=output.encoder_attention[:0],
    )
