"""Image classification: the inputs, the loss and the validation step."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from vit_jax._xla import compiler_options
from vit_jax.attention import Key
from vit_jax.data.augment.mix import NO_MIX, MixConfig, mix_batch
from vit_jax.data.augment.transforms import Augment, augment_batch
from vit_jax.data.loader import Batch
from vit_jax.execution import DEFAULT_EXECUTION, BlockExecution
from vit_jax.preprocess import Preprocess
from vit_jax.train.state import Totals
from vit_jax.train.step import TaskLoss


class ClassifierInputs(NamedTuple):
    """Normalised images [B, h, w, c], labels [B] or sets of them [B, C], and weights [B].

    weights: 0 for rows that only fill the batch.
    shares: the weights of the classes [B, C] of mixed images, or None.
    """

    images: jax.Array
    labels: jax.Array
    weights: jax.Array
    shares: jax.Array | None = None


def cross_entropy(
    logits: Float[Array, "b c"],
    labels: Int[Array, " b"],
    weights: Float[Array, " b"],
    *,
    shares: Float[Array, "b c"] | None = None,
    label_smoothing: float = 0.0,
    class_weights: tuple[float, ...] | None = None,
) -> TaskLoss:
    """Return the cross-entropy over rows of weight 1, in nats; predictions are correct if they equal the labels.

    shares: the target distribution, in place of the labels.
    label_smoothing: fraction of the target that is spread evenly over the classes (torch's definition).
    class_weights: of each class; a row has the weight of its label, or its mixture, and the mean divides by their sum,
        as torch does for labels. The totals to log have no such weights.
    """
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    if shares is None and not label_smoothing:
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    else:
        classes = logits.shape[-1]
        target = jax.nn.one_hot(labels, classes, dtype=logits.dtype) if shares is None else shares
        losses = optax.softmax_cross_entropy(logits, target * (1 - label_smoothing) + label_smoothing / classes)
    hits = (logits.argmax(axis=-1) == labels).astype(weights.dtype)
    count = weights.sum()
    total = (losses * weights).sum()
    totals = Totals(total, (hits * weights).sum(), count)
    if class_weights is None:
        return TaskLoss(total, count, totals)
    by_class = jnp.asarray(class_weights, losses.dtype)
    row_weights = weights * (by_class[labels] if shares is None else shares.astype(losses.dtype) @ by_class)
    # A batch may hold only classes that the weights leave out, or fill rows alone.
    return TaskLoss((losses * row_weights).sum(), jnp.maximum(row_weights.sum(), jnp.finfo(losses.dtype).tiny), totals)


def sigmoid_cross_entropy(
    logits: Float[Array, "b c"],
    labels: Bool[Array, "b c"],
    weights: Float[Array, " b"],
    *,
    shares: Float[Array, "b c"] | None = None,
    label_smoothing: float = 0.0,
    class_weights: tuple[float, ...] | None = None,
) -> TaskLoss:
    """Return the binary cross-entropy, its mean over the classes, over rows of weight 1, in nats.

    labels: which classes an image has. The prediction of a class is correct if the sign of its logit agrees.
    shares: the targets in [0, 1], in place of the labels.
    label_smoothing: s moves the targets 0 and 1 to s / 2 and 1 - s / 2.
    class_weights: factor of the loss of each class where an image has it (torch's pos_weight).
    """
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    target = labels.astype(logits.dtype) if shares is None else shares.astype(logits.dtype)
    target = target * (1 - label_smoothing) + label_smoothing / 2
    losses = optax.sigmoid_binary_cross_entropy(logits, target)
    hits = ((logits > 0) == labels).astype(weights.dtype).mean(axis=-1)
    count = weights.sum()
    total = (losses.mean(axis=-1) * weights).sum()
    totals = Totals(total, (hits * weights).sum(), count)
    if class_weights is None:
        return TaskLoss(total, count, totals)
    factors = jnp.asarray(class_weights, losses.dtype)[None]
    losses = losses + (factors - 1) * target * jax.nn.softplus(-logits)
    return TaskLoss((losses.mean(axis=-1) * weights).sum(), count, totals)


def make_prepare(
    settings: Augment, preprocess: Preprocess, mixing: MixConfig = NO_MIX
) -> Callable[[Batch, Key], ClassifierInputs]:
    """Return (batch of 8-bit images, key) -> inputs, augmented and mixed."""

    def prepare(batch: Batch, key: Key) -> ClassifierInputs:
        images = preprocess.normalize(augment_batch(key, jnp.asarray(batch.images), settings))
        labels, weights = jnp.asarray(batch.labels), jnp.asarray(batch.weights)
        if mixing == NO_MIX:
            return ClassifierInputs(images, labels, weights)
        is_set = labels.ndim == 2
        shares = labels.astype(images.dtype) if is_set else jax.nn.one_hot(labels, mixing.classes, dtype=images.dtype)
        images, shares = mix_batch(jax.random.fold_in(key, 1), images, shares, weights, mixing)
        return ClassifierInputs(images, labels, weights, shares)

    return prepare


def classification_loss(
    model: Any,
    inputs: ClassifierInputs,
    key: Key | None,
    *,
    execution: BlockExecution = DEFAULT_EXECUTION,
    label_smoothing: float = 0.0,
    loss: Callable[..., TaskLoss] = cross_entropy,
) -> TaskLoss:
    """Return the loss of a classifier; a key turns dropout on. loss: cross_entropy, or one of its signature."""
    logits = model(inputs.images, key=key, execution=execution)
    options: dict[str, Any] = dict(shares=inputs.shares, label_smoothing=label_smoothing)
    return loss(logits, inputs.labels, inputs.weights, **options)


@functools.cache  # so that it is compiled once
def make_eval_step(
    preprocess: Preprocess, loss: Callable[..., TaskLoss] = cross_entropy
) -> Callable[[Any, Batch], tuple[Totals, jax.Array]]:
    """Return (model, batch of 8-bit images) -> (sums over the rows of weight 1, logits [B, C])."""

    def eval_step(model: Any, batch: Batch) -> tuple[Totals, jax.Array]:
        logits = model(preprocess.normalize(jnp.asarray(batch.images).astype(jnp.float32) / 255))
        return loss(logits, jnp.asarray(batch.labels), jnp.asarray(batch.weights)).totals, logits

    return jax.jit(eval_step, compiler_options=compiler_options(forward_only=True))
