"""Captions from images: the image encoded once, keys and values cached, one compiled loop that stops when all are done.

Greedy search, and beam search with a length penalty and without repeated n-grams. A beam's candidates are ranked by
log-probability; a hypothesis that ends leaves the beam for the finished ones, ranked by log-probability / length ^
penalty (https://arxiv.org/abs/1609.08144 without its constant; length counts the tokens emitted, as Hugging Face has
it). An end counts only among a step's best `num_beams` candidates, so that one beam is greedy search. The loop stops
when no hypothesis that still grows could become one of the finished ones, which changes no answer.

Letters: B batch, h x w image, K beams, T text tokens, V vocabulary.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from caption.decoding import Cache, PreparedDecoder, decode_step, empty_cache, prepare_decoder
from caption.model import CaptionTransformer, ImageMask
from vit_jax import InputError, compiler_options
from vit_jax.block import Images

START, END, PAD = 101, 102, 0  # [CLS], [SEP] and [PAD] of bert-base-uncased


class GeneratedCaptions(NamedTuple):
    """Captions, as tokens. With n_best=K an axis comes after B, best first.

    tokens:    [B, T]; each opens with the start token, keeps its end token, and is 0 after it
    log_probs: [B], natural, summed over the tokens emitted, the end token included; -inf where the search found fewer
               hypotheses than asked for
    lengths:   [B], tokens of each caption, start and end included
    """

    tokens: Int[Array, "*batch t"]
    log_probs: Float[Array, "*batch"]
    lengths: Int[Array, "*batch"]


class _Search(NamedTuple):
    """The loop's state: hypotheses that grow, [B, K, ...], and the best of those that ended."""

    step: Int[Array, ""]  # tokens written so far, the start token included
    tokens: Int[Array, "b k t"]
    log_probs: Float[Array, "b k"]
    cache: Cache  # [B * K, ...]
    ended: Int[Array, "b k t"]
    ended_scores: Float[Array, "b k"]
    ended_log_probs: Float[Array, "b k"]
    ended_lengths: Int[Array, "b k"]


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
    """Caption each image [B, h, w, 3], normalised, of which image_mask [B, h, w] is True where there is content.

    max_length:      tokens at most, start and end included; a caption without an end by then is cut there.
    num_beams:       1 is greedy search.
    n_best:          that many captions of each image, best first; at most num_beams.
    length_penalty:  0 ranks by log-probability; above it, longer captions gain.
    no_repeat_ngram: no n tokens in a row come twice; 0 leaves them.
    padding:         see CaptionTransformer.

    Raises InputError for numbers that do not fit one another or the model. Compiled once for each of them and each
    shape; a batch answers what its images answer one by one.
    """
    config = model.config
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
    outermost = not any(isinstance(x, jax.core.Tracer) for x in (images, image_mask, model.embedding.words[...]))
    found = _compiled(outermost)(
        model,
        images,
        image_mask,
        length_penalty=jnp.asarray(length_penalty, float),
        max_length=max_length,
        num_beams=num_beams,
        no_repeat_ngram=no_repeat_ngram,
        padding=padding,
        start=start,
        end=end,
    )
    if n_best is None:
        return jax.tree.map(lambda x: x[:, 0], found)
    return jax.tree.map(lambda x: x[:, :n_best], found)


@cache
def _compiled(outermost: bool) -> Callable[..., GeneratedCaptions]:
    """The search, compiled. Within another jax.jit it is that one's options that count."""
    static = ("max_length", "num_beams", "no_repeat_ngram", "padding", "start", "end")
    options = compiler_options(forward_only=True) if outermost else None
    return jax.jit(_generate, static_argnames=static, compiler_options=options)


def _generate(
    model: CaptionTransformer,
    images: Images,
    image_mask: ImageMask,
    *,
    length_penalty: Float[Array, ""],
    max_length: int,
    num_beams: int,
    no_repeat_ngram: int,
    padding: str,
    start: int,
    end: int,
) -> GeneratedCaptions:
    memory = model.encode(images, image_mask, padding=padding)
    step = partial(_step, model, prepare_decoder(model, memory), length_penalty, no_repeat_ngram, end)
    going = partial(_going, length_penalty, max_length)
    search = _first(model, images.shape[0], num_beams, max_length, start, memory.tokens.dtype)
    return _finish(jax.lax.while_loop(going, step, search), length_penalty)


def _first(model: CaptionTransformer, batch: int, beams: int, length: int, start: int, dtype: jnp.dtype) -> _Search:
    """Every beam holds the start token, and all but the first are impossible, so that they do not grow alike."""
    tokens = jnp.full((batch, beams, length), PAD, jnp.int32)
    alone = jnp.where(jnp.arange(beams) == 0, 0.0, -jnp.inf).astype(dtype)
    none = jnp.full((batch, beams), -jnp.inf, dtype)
    return _Search(
        step=jnp.ones((), jnp.int32),
        tokens=tokens.at[:, :, 0].set(start),
        log_probs=jnp.broadcast_to(alone.reshape(1, beams), (batch, beams)),
        cache=empty_cache(model, batch * beams, length, dtype=dtype),
        ended=tokens,
        ended_scores=none,
        ended_log_probs=none,
        ended_lengths=jnp.zeros((batch, beams), jnp.int32),
    )


def _going(penalty: Float[Array, ""], length: int, search: _Search) -> jax.Array:
    """Whether there is room, and a hypothesis that grows could still beat the worst of the finished ones."""
    best = search.log_probs.max(axis=1)
    # What it emits only lowers the log-probability, so its score is at most this one over the greatest length.
    hopeful = _scored(best, jnp.asarray(length - 1), penalty) > search.ended_scores.min(axis=1)
    return (search.step < length) & hopeful.any()


def _scored(log_probs: jax.Array, emitted: jax.Array, penalty: jax.Array) -> jax.Array:
    return log_probs / (emitted.astype(log_probs.dtype) ** penalty.astype(log_probs.dtype))


def _step(
    model: CaptionTransformer,
    prepared: PreparedDecoder,
    penalty: Float[Array, ""],
    ngram: int,
    end: int,
    search: _Search,
) -> _Search:
    """One more token for every hypothesis."""
    b, k, _ = search.tokens.shape
    last = jax.lax.dynamic_index_in_dim(search.tokens, search.step - 1, axis=2, keepdims=False)
    logits, cache = decode_step(model, last.reshape(b * k), search.step - 1, search.cache, prepared)
    log_probs = jax.nn.log_softmax(logits, axis=-1).reshape(b, k, -1)
    if ngram:
        log_probs = jnp.where(_repeating(search.tokens, search.step, ngram, log_probs.shape[-1]), -jnp.inf, log_probs)
    v = log_probs.shape[-1]
    candidates = (search.log_probs[:, :, None] + log_probs).reshape(b, k * v)
    # Twice as many as beams: at most one of each beam ends, so enough are left that grow.
    values, places = jax.lax.top_k(candidates, 2 * k)
    parents, words = places // v, places % v
    tokens = jnp.take_along_axis(search.tokens, parents[:, :, None], axis=1)
    tokens = tokens.at[:, :, search.step].set(words.astype(jnp.int32))
    ends = words == end

    growing = jnp.where(ends, -jnp.inf, values)
    kept_log_probs, kept = jax.lax.top_k(growing, k)
    rows = (jnp.arange(b)[:, None] * k + jnp.take_along_axis(parents, kept, axis=1)).reshape(b * k)
    first = (jnp.arange(2 * k) < k).reshape(1, 2 * k)
    finished = jnp.where(ends & first, values, -jnp.inf)
    search = search._replace(
        step=search.step + 1,
        tokens=jnp.take_along_axis(tokens, kept[:, :, None], axis=1),
        log_probs=kept_log_probs,
        cache=jax.tree.map(lambda x: x[rows], cache) if k > 1 else cache,
    )
    return _ended(search, tokens, finished, search.step, penalty)


def _ended(search: _Search, tokens: jax.Array, log_probs: jax.Array, length: jax.Array, penalty: jax.Array) -> _Search:
    """The best of the finished hypotheses and of these, all of one length; impossible ones have -inf."""
    lengths = jnp.broadcast_to(length, log_probs.shape)
    scores = jnp.concatenate([search.ended_scores, _scored(log_probs, lengths - 1, penalty)], axis=1)
    best, places = jax.lax.top_k(scores, search.ended_scores.shape[1])

    def chosen(old: jax.Array, new: jax.Array) -> jax.Array:
        both = jnp.concatenate([old, new], axis=1)
        return jnp.take_along_axis(both, places.reshape(places.shape + (1,) * (both.ndim - 2)), axis=1)

    return search._replace(
        ended=chosen(search.ended, tokens),
        ended_scores=best,
        ended_log_probs=chosen(search.ended_log_probs, log_probs),
        ended_lengths=chosen(search.ended_lengths, lengths),
    )


def _finish(search: _Search, penalty: jax.Array) -> GeneratedCaptions:
    """What the loop left growing is cut and counts as it is."""
    search = _ended(search, search.tokens, search.log_probs, search.step, penalty)
    found = jnp.isfinite(search.ended_log_probs)
    tokens = jnp.where(found[:, :, None], search.ended, PAD)
    return GeneratedCaptions(tokens, search.ended_log_probs, jnp.where(found, search.ended_lengths, 0))


def _repeating(tokens: Int[Array, "b k t"], step: Int[Array, ""], n: int, vocabulary: int) -> jax.Array:
    """[B, K, V]: whether a word would end n tokens in a row that were there before."""
    b, k, t = tokens.shape
    starts = jnp.arange(max(t - n + 1, 0))
    earlier = jnp.stack([tokens[:, :, i : i + starts.size] for i in range(n)], axis=-1)  # [B, K, T - n + 1, n]
    recent = (
        jnp.stack([jax.lax.dynamic_index_in_dim(tokens, step - n + 1 + i, axis=2) for i in range(n - 1)], axis=-1)
        if n > 1
        else jnp.zeros((b, k, 1, 0), tokens.dtype)
    )  # [B, K, 1, n - 1]
    alike = (earlier[..., :-1] == recent).all(axis=-1) & (starts + n <= step).reshape(1, 1, -1) & (step >= n)
    hits = jnp.zeros((b, k, vocabulary), bool)
    rows, beams = jnp.arange(b).reshape(b, 1, 1), jnp.arange(k).reshape(1, k, 1)
    return hits.at[rows, beams, earlier[..., -1]].max(alike)
