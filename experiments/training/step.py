"""One compiled training step and one compiled evaluation step."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from experiments.data.augment import Augment, augment
from experiments.data.pipeline import Batch
from experiments.training.state import Totals, TrainState
from vit_jax import Preprocess
from vit_jax.attention import Key


def cross_entropy(
    logits: Float[Array, "b c"], labels: Int[Array, " b"], weights: Float[Array, " b"]
) -> tuple[Float[Array, ""], Totals]:
    """The mean cross-entropy over rows of weight 1, in nats, and the sums of loss, hits and rows."""
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    hits = (logits.argmax(axis=-1) == labels).astype(weights.dtype)
    count = weights.sum()
    total = (losses * weights).sum()
    return total / count, Totals(total, (hits * weights).sum(), count)


def update(
    state: TrainState,
    images: Float[Array, "b h w c"],
    labels: Int[Array, " b"],
    weights: Float[Array, " b"],
    key: Key | None,
    tx: optax.GradientTransformation,
) -> TrainState:
    """One optimiser step on normalised images; a key turns dropout on. Pure: jit it."""

    def loss_of(model: Any) -> tuple[jax.Array, Totals]:
        return cross_entropy(model(images, key=key), labels, weights)

    (_, sums), gradient = jax.value_and_grad(loss_of, has_aux=True)(state.model)
    updates, opt_state = tx.update(gradient, state.opt_state, state.model)
    totals = Totals(*(old + new for old, new in zip(state.totals, sums, strict=True)))
    return TrainState(optax.apply_updates(state.model, updates), opt_state, state.step + 1, totals)


def make_train_step(
    tx: optax.GradientTransformation, settings: Augment, preprocess: Preprocess, seed: int
) -> Callable[[TrainState, Batch], tuple[TrainState, jax.Array]]:
    """(state, batch of 8-bit images) -> (state, its step): augment, normalise, forward, backward, update at once.

    Every draw is a function of (seed, step), so a resumed run draws the same. The old state's memory is reused; the
    step beside the state is a buffer of its own, to wait on.
    """

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, jax.Array]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        augment_key, dropout_key = jax.random.split(key)
        images = preprocess.normalize(augment(augment_key, jnp.asarray(batch.images), settings))
        state = update(state, images, jnp.asarray(batch.labels), jnp.asarray(batch.weights), dropout_key, tx)
        return state, state.step

    return jax.jit(train_step, donate_argnums=0)


def make_eval_step(preprocess: Preprocess) -> Callable[[Any, Batch], tuple[Totals, jax.Array]]:
    """(model, batch of 8-bit images) -> (sums over the rows of weight 1, logits [B, C])."""

    def eval_step(model: Any, batch: Batch) -> tuple[Totals, jax.Array]:
        logits = model(preprocess.normalize(jnp.asarray(batch.images).astype(jnp.float32) / 255))
        _, sums = cross_entropy(logits, jnp.asarray(batch.labels), jnp.asarray(batch.weights))
        return sums, logits

    return jax.jit(eval_step)
