"""A captioner: a model with its vocabulary, from pictures to captions and a map per word.

Letters: B batch, h x w the model's input, H x W a picture, T text tokens.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from caption._generate import GeneratedCaptions, generate
from caption.attention import WordMaps
from caption.model import CaptionTransformer
from caption.preprocess import PaddedBatch, pad_batch
from caption.tokenizer import Tokenizer
from caption.word_maps import MapOptions, compute_word_maps
from vit_jax import InputError
from vit_jax.checkpoint import hash_weights
from vit_jax.data.batches import pad_batch_to
from vit_jax.data.decode import open_rgb
from vit_jax.plot.picture import MAX_SIDE


@dataclass(frozen=True)
class SearchOptions:
    """Options of caption.generate."""

    max_length: int
    num_beams: int = 1
    n_best: int = 1
    length_penalty: float = 0.0
    no_repeat_ngram: int = 0


class PreparedImage(NamedTuple):
    """A picture prepared for the model.

    pixels: normalised, at the model's scale
    shown:  the part that the model sees, for figures; at most MAX_SIDE pixels a side
    """

    pixels: Float32[np.ndarray, "h w 3"]
    shown: UInt8[np.ndarray, "H W 3"]


class ScoredCaption(NamedTuple):
    """A caption and its natural log-probability, summed over its tokens."""

    caption: str
    log_probability: float


class CaptionResult(NamedTuple):
    """A picture's captions, best first, and the maps of the best one's words, when asked for."""

    captions: list[ScoredCaption]
    words: WordMaps


class Captioner:
    """A model with its vocabulary and options. maps None computes no word maps.

    Raises InputError for a layer or head of the maps that the model does not have.
    """

    def __init__(self, model: CaptionTransformer, tokenizer: Tokenizer, search: SearchOptions, maps: MapOptions | None):
        self.model, self.tokenizer, self.search, self.maps = model, tokenizer, search, maps
        if maps is not None:
            maps.check(model.config.decoder_layers, model.config.num_heads)
        self.size = model.config.image_preprocess.size

    def open(self, file: str | Path) -> Image.Image:
        """Decode a picture as the model's config has it, upright RGB. Raises as vit_jax.data.open_rgb does."""
        preprocess = self.model.config.image_preprocess
        return open_rgb(file, background=preprocess.background, max_value=preprocess.max_value)

    def prepare(self, picture: Image.Image) -> PreparedImage:
        """Preprocess a picture as the model's config has it: see CaptionConfig.image_preprocess."""
        preprocess = self.model.config.image_preprocess
        pixels, shown = preprocess(picture), preprocess.view(picture).copy()
        shown.thumbnail((MAX_SIDE, MAX_SIDE))
        return PreparedImage(pixels, np.asarray(shown))

    def __call__(self, pictures: Sequence[PreparedImage], batch_size: int) -> list[CaptionResult]:
        """Caption at most batch_size pictures. All batches have one shape, so the model is compiled once.

        Raises InputError when the model's output is not finite.
        """
        batch, generated = self.generate(pictures, batch_size)
        tokens, log_probs, lengths = (np.asarray(field) for field in generated)
        count = len(pictures)
        words: list[WordMaps] = [[] for _ in range(count)]
        if self.maps is not None:
            words = compute_word_maps(
                self.model, self.tokenizer, batch, tokens[:, 0], lengths[:, 0], self.maps, count=count
            )
        return [CaptionResult(self.decode(tokens[i], log_probs[i], lengths[i]), words[i]) for i in range(count)]

    def generate(self, pictures: Sequence[PreparedImage], batch_size: int) -> tuple[PaddedBatch, GeneratedCaptions]:
        """Return a batch of batch_size pictures that begins with these, and the captions' tokens.

        Raises InputError when the model's output is not finite.
        """
        # The batch is filled with a real picture: attention over an empty one would be 0 / 0.
        padded, _ = pad_batch_to(batch_size, pictures, pictures[-1])
        batch = pad_batch([picture.pixels for picture in padded], self.size)
        start, end = self.tokenizer.start, self.tokenizer.end
        generated = generate(self.model, batch.images, batch.mask, **asdict(self.search), start=start, end=end)
        if not np.isfinite(np.asarray(generated.log_probs)[: len(pictures), 0]).all():
            raise InputError("the model's output is not finite (NaN); are its weights damaged?")
        return batch, generated

    def decode(self, tokens: np.ndarray, log_probs: np.ndarray, lengths: np.ndarray) -> list[ScoredCaption]:
        """Return one picture's captions, best first; fewer than n_best when the search has fewer hypotheses."""
        return [
            ScoredCaption(self.tokenizer.decode(text[:length]), float(value))
            for text, value, length in zip(tokens, log_probs, lengths, strict=True)
            if length
        ]

    def settings(self) -> dict[str, Any]:
        """Return all that captions depend on, JSON-able: options, decoding, hashes of weights and vocabulary."""
        vocabulary = hashlib.sha256("\n".join(self.tokenizer.vocabulary).encode()).hexdigest()
        model = {"weights": hash_weights(self.model), "vocabulary": vocabulary}
        preprocess = self.model.config.image_preprocess
        decoding = {"background": preprocess.background, "max_value": preprocess.max_value}
        return model | decoding | asdict(self.search)
