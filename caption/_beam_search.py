"""Beam search with cached decoding: one jax loop that stops when every image is done.

Candidates are ranked by log-probability. A hypothesis that emits the end token moves from the beam to the finished
ones, which are ranked by log-probability / length ** penalty (https://arxiv.org/abs/1609.08144 without its constant;
length counts the emitted tokens, as in Hugging Face). An end token counts only among a step's best K candidates, so
that one beam is greedy search. The loop stops when no active hypothesis can enter the finished ones any more; this does
not change the result.

Letters: B batch, K beams, T text tokens, V vocabulary.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from caption.decoding import Cache, PreparedDecoder, decode_step, empty_cache
from caption.model import CaptionTransformer

PAD = 0


class BeamState(NamedTuple):
    """The loop's state: active hypotheses [B, K, ...] and the best finished ones."""

    length: Int[Array, ""]  # tokens of every active hypothesis, the start token included
    tokens: Int[Array, "b k t"]
    log_probs: Float[Array, "b k"]
    cache: Cache  # [B * K, ...]
    finished: Int[Array, "b k t"]
    finished_scores: Float[Array, "b k"]
    finished_log_probs: Float[Array, "b k"]
    finished_lengths: Int[Array, "b k"]


def beam_search(
    model: CaptionTransformer,
    prepared: PreparedDecoder,
    *,
    batch: int,
    length_penalty: Float[Array, ""],
    max_length: int,
    num_beams: int,
    no_repeat_ngram: int,
    start: int,
    end: int,
) -> BeamState:
    """Return the state whose finished hypotheses are the result; the options are those of caption.generate.

    Log-probabilities are summed in float32 at least.
    """
    step = partial(_extend, model, prepared, length_penalty, no_repeat_ngram, end)
    should_continue = partial(_should_continue, length_penalty, max_length)
    dtype = prepared.layers[0].qkv_kernel.dtype
    state = _init_state(model, batch, num_beams, max_length, start, dtype)
    state = jax.lax.while_loop(should_continue, step, state)
    # Hypotheses that are still active are cut, and count as they are.
    return _add_finished(state, state.tokens, state.log_probs, state.length, length_penalty)


def _init_state(
    model: CaptionTransformer, batch: int, beams: int, max_length: int, start: int, dtype: jnp.dtype
) -> BeamState:
    """Every beam holds the start token. All but the first are impossible, so that they do not grow alike."""
    tokens, sums = jnp.full((batch, beams, max_length), PAD, jnp.int32), jnp.promote_types(dtype, jnp.float32)
    first_only = jnp.where(jnp.arange(beams) == 0, 0.0, -jnp.inf).astype(sums)
    impossible = jnp.full((batch, beams), -jnp.inf, sums)
    return BeamState(
        length=jnp.ones((), jnp.int32),
        tokens=tokens.at[:, :, 0].set(start),
        log_probs=jnp.broadcast_to(first_only.reshape(1, beams), (batch, beams)),
        cache=empty_cache(model, batch * beams, max_length, dtype=dtype),
        finished=tokens,
        finished_scores=impossible,
        finished_log_probs=impossible,
        finished_lengths=jnp.zeros((batch, beams), jnp.int32),
    )


def _should_continue(penalty: Float[Array, ""], max_length: int, state: BeamState) -> Bool[Array, ""]:
    """Whether there is room, and an active hypothesis could still beat the worst finished one."""
    best = state.log_probs.max(axis=1)
    # Emitting tokens only lowers the log-probability, so the final score is at most this one over the maximum length.
    can_win = _score(best, jnp.asarray(max_length - 1), penalty) > state.finished_scores.min(axis=1)
    return (state.length < max_length) & can_win.any()


def _score(log_probs: jax.Array, emitted: jax.Array, penalty: jax.Array) -> jax.Array:
    return log_probs / (emitted.astype(log_probs.dtype) ** penalty.astype(log_probs.dtype))


def _extend(
    model: CaptionTransformer,
    prepared: PreparedDecoder,
    penalty: Float[Array, ""],
    ngram: int,
    end: int,
    state: BeamState,
) -> BeamState:
    """Extend every active hypothesis by one token."""
    b, k, _ = state.tokens.shape
    last = jax.lax.dynamic_index_in_dim(state.tokens, state.length - 1, axis=2, keepdims=False)
    logits, cache = decode_step(model, last.reshape(b * k), state.length - 1, state.cache, prepared)
    log_probs = jax.nn.log_softmax(logits.astype(state.log_probs.dtype), axis=-1).reshape(b, k, -1)
    v = log_probs.shape[-1]
    if ngram:
        log_probs = jnp.where(_repeats_ngram(state.tokens, state.length, ngram, v), -jnp.inf, log_probs)
    candidates = (state.log_probs[:, :, None] + log_probs).reshape(b, k * v)
    # 2 K candidates: at most one per beam ends, so at least K can stay active.
    values, indices = jax.lax.top_k(candidates, 2 * k)
    parents, words = indices // v, indices % v
    tokens = jnp.take_along_axis(state.tokens, parents[:, :, None], axis=1)
    tokens = tokens.at[:, :, state.length].set(words.astype(jnp.int32))
    ends = words == end

    log_probs, survivors = jax.lax.top_k(jnp.where(ends, -jnp.inf, values), k)
    rows = (jnp.arange(b)[:, None] * k + jnp.take_along_axis(parents, survivors, axis=1)).reshape(b * k)
    is_in_best_k = (jnp.arange(2 * k) < k).reshape(1, 2 * k)
    state = state._replace(
        length=state.length + 1,
        tokens=jnp.take_along_axis(tokens, survivors[:, :, None], axis=1),
        log_probs=log_probs,
        cache=jax.tree.map(lambda x: x[rows], cache) if k > 1 else cache,
    )
    return _add_finished(state, tokens, jnp.where(ends & is_in_best_k, values, -jnp.inf), state.length, penalty)


def _add_finished(
    state: BeamState, tokens: jax.Array, log_probs: jax.Array, length: jax.Array, penalty: jax.Array
) -> BeamState:
    """Keep the best K of the finished hypotheses and these, all of one length; impossible ones have -inf."""
    lengths = jnp.broadcast_to(length, log_probs.shape)
    scores = jnp.concatenate([state.finished_scores, _score(log_probs, lengths - 1, penalty)], axis=1)
    best, indices = jax.lax.top_k(scores, state.finished_scores.shape[1])

    def select(old: jax.Array, new: jax.Array) -> jax.Array:
        both = jnp.concatenate([old, new], axis=1)
        return jnp.take_along_axis(both, indices.reshape(indices.shape + (1,) * (both.ndim - 2)), axis=1)

    return state._replace(
        finished=select(state.finished, tokens),
        finished_scores=best,
        finished_log_probs=select(state.finished_log_probs, log_probs),
        finished_lengths=select(state.finished_lengths, lengths),
    )


def _repeats_ngram(
    tokens: Int[Array, "b k t"], length: Int[Array, ""], n: int, vocabulary: int
) -> Bool[Array, "b k vocabulary"]:
    """Whether each next word would complete an n-gram that the hypothesis already contains."""
    b, k, t = tokens.shape
    starts = jnp.arange(max(t - n + 1, 0))
    earlier = jnp.stack([tokens[:, :, i : i + starts.size] for i in range(n)], axis=-1)  # [B, K, T - n + 1, n]
    recent = (
        jnp.stack([jax.lax.dynamic_index_in_dim(tokens, length - n + 1 + i, axis=2) for i in range(n - 1)], axis=-1)
        if n > 1
        else jnp.zeros((b, k, 1, 0), tokens.dtype)
    )  # [B, K, 1, n - 1]
    is_written = (starts + n <= length).reshape(1, 1, -1) & (length >= n)
    matches = (earlier[..., :-1] == recent).all(axis=-1) & is_written
    repeats = jnp.zeros((b, k, vocabulary), bool)
    rows, beams = jnp.arange(b).reshape(b, 1, 1), jnp.arange(k).reshape(1, k, 1)
    return repeats.at[rows, beams, earlier[..., -1]].max(matches)
