"""Captions from images: encode the image once, then search with cached keys and values in one compiled loop.

Letters: B batch, h x w image, K beams, T text tokens.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from caption._beam_search import PAD, beam_search
from caption.config import CaptionConfig
from caption.decoding import prepare_decoder
from caption.model import CaptionTransformer, ImageMask
from vit_jax import InputError, compiler_options
from vit_jax.block import Images

START, END = 101, 102  # [CLS] and [SEP] of bert-base-uncased


class GeneratedCaptions(NamedTuple):
    """Captions as tokens. With n_best=K there is an axis K after B, best first.

    tokens:    [B, T]: start token, caption, end token, then zeros
    log_probs: [B], natural, summed over the emitted tokens, end token included; -inf when the search has fewer
               hypotheses than n_best
    lengths:   [B], number of tokens, start and end included
    """

    tokens: Int[Array, "*batch t"]
    log_probs: Float[Array, "*batch"]
    lengths: Int[Array, "*batch"]


def generate(
    model: CaptionTransformer,
    images: Images,
    image_mask: ImageMask,
    *,
    max_length: int,
    num_beams: int = 1,
    n_best: int | None = None,
    length_penalty: float = 0.0,
    no_repeat_ngram: int = 0,
    padding: str = "alone",
    start: int = START,
    end: int = END,
) -> GeneratedCaptions:
    """Caption normalised images [B, h, w, 3]; image_mask [B, h, w] is True on content.

    max_length:      maximum number of tokens, start and end included; a caption without an end is cut there.
    num_beams:       1 is greedy search.
    n_best:          number of captions per image, best first; at most num_beams.
    length_penalty:  0 ranks by log-probability; higher values favour longer captions. See beam_search.py.
    no_repeat_ngram: no n-gram of this length occurs twice; 0 allows all.
    padding:         see CaptionTransformer.

    Compiled once per combination of options and shapes. A batch gives each image the captions that it has alone.
    Raises InputError for options that do not fit one another or the model.
    """
    static: dict[str, Any] = dict(max_length=max_length, num_beams=num_beams, no_repeat_ngram=no_repeat_ngram)
    static |= dict(padding=padding, start=start, end=end)
    _check_options(model.config, n_best=n_best, length_penalty=length_penalty, **static)
    is_traced = any(isinstance(x, jax.core.Tracer) for x in (images, image_mask, model.embedding.words[...]))
    search = _compile_search(is_outermost=not is_traced)
    captions = search(model, images, image_mask, length_penalty=jnp.asarray(length_penalty, float), **static)
    if n_best is None:
        return jax.tree.map(lambda x: x[:, 0], captions)
    return jax.tree.map(lambda x: x[:, :n_best], captions)


def _check_options(
    config: CaptionConfig,
    *,
    max_length: int,
    num_beams: int,
    n_best: int | None,
    length_penalty: float,
    no_repeat_ngram: int,
    padding: str,
    start: int,
    end: int,
) -> None:
    """Raise InputError for options that do not fit one another or the model; encode() checks the padding."""
    if not 2 <= max_length <= config.max_positions:
        raise InputError(f"max_length is between 2 and the model's {config.max_positions} positions, not {max_length}")
    if not 1 <= num_beams <= config.vocab_size // 2:
        raise InputError(f"num_beams is between 1 and half the vocabulary, not {num_beams}")
    if n_best is not None and not 1 <= n_best <= num_beams:
        raise InputError(f"n_best is between 1 and num_beams ({num_beams}), not {n_best}")
    if no_repeat_ngram < 0 or length_penalty < 0:
        raise InputError(f"no_repeat_ngram and length_penalty are at least 0, not {no_repeat_ngram}, {length_penalty}")
    for name, token in (("start", start), ("end", end)):
        if not 0 <= token < config.vocab_size:
            raise InputError(f"{name} token {token} is not among the model's {config.vocab_size}")


@cache
def _compile_search(*, is_outermost: bool) -> Callable[..., GeneratedCaptions]:
    """Compile the search. Inside another jax.jit that one's compiler options apply."""
    static = ("max_length", "num_beams", "no_repeat_ngram", "padding", "start", "end")
    options = compiler_options(forward_only=True) if is_outermost else None
    return jax.jit(_encode_and_search, static_argnames=static, compiler_options=options)


def _encode_and_search(
    model: CaptionTransformer, images: Images, image_mask: ImageMask, *, padding: str, **options: Any
) -> GeneratedCaptions:
    """Return all beams' captions, best first."""
    memory = model.encode(images, image_mask, padding=padding)
    prepared = prepare_decoder(model, memory)
    state = beam_search(model, prepared, batch=images.shape[0], **options)
    exists = jnp.isfinite(state.finished_log_probs)
    tokens = jnp.where(exists[:, :, None], state.finished, PAD)
    return GeneratedCaptions(tokens, state.finished_log_probs, jnp.where(exists, state.finished_lengths, 0))
