"""What an image classifier learns from a batch, and how it is judged."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from experiments.data.augment import Augment, augment
from experiments.data.pipeline import Batch
from experiments.training.state import Totals
from experiments.training.step import Loss
from vit_jax import Preprocess
from vit_jax.attention import Key
from vit_jax.layers import PLAIN, Layers


class Inputs(NamedTuple):
    """Normalised images [B, h, w, 3], labels [B], and weights [B], 0 for rows that only fill the batch."""

    images: jax.Array
    labels: jax.Array
    weights: jax.Array


def cross_entropy(logits: Float[Array, "b c"], labels: Int[Array, " b"], weights: Float[Array, " b"]) -> Loss:
    """The cross-entropy over rows of weight 1, in nats."""
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    hits = (logits.argmax(axis=-1) == labels).astype(weights.dtype)
    count = weights.sum()
    total = (losses * weights).sum()
    return Loss(total, count, Totals(total, (hits * weights).sum(), count))


def make_prepare(settings: Augment, preprocess: Preprocess) -> Callable[[Batch, Key], Inputs]:
    """(batch of 8-bit images, key) -> inputs, augmented."""

    def prepare(batch: Batch, key: Key) -> Inputs:
        images = preprocess.normalize(augment(key, jnp.asarray(batch.images), settings))
        return Inputs(images, jnp.asarray(batch.labels), jnp.asarray(batch.weights))

    return prepare


def loss_of(model: Any, inputs: Inputs, key: Key | None, *, layers: Layers = PLAIN) -> Loss:
    """The loss of a classifier; a key turns dropout on."""
    images = inputs.images.astype(jax.tree.leaves(model)[0].dtype)
    return cross_entropy(model(images, key=key, layers=layers), inputs.labels, inputs.weights)


def make_eval_step(preprocess: Preprocess) -> Callable[[Any, Batch], tuple[Totals, jax.Array]]:
    """(model, batch of 8-bit images) -> (sums over the rows of weight 1, logits [B, C])."""

    def eval_step(model: Any, batch: Batch) -> tuple[Totals, jax.Array]:
        logits = model(preprocess.normalize(jnp.asarray(batch.images).astype(jnp.float32) / 255))
        return cross_entropy(logits, jnp.asarray(batch.labels), jnp.asarray(batch.weights)).totals, logits

    return jax.jit(eval_step)
