"""What a captioner learns from a batch, and how it is judged."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from caption.data.loader import CaptionBatch
from caption.model import CaptionTransformer
from caption.train.optim import caption_losses
from caption.train.recipe import CaptionRecipe
from vit_jax import compiler_options
from vit_jax.attention import Key
from vit_jax.execution import DEFAULT_EXECUTION, BlockExecution
from vit_jax.train.state import Totals
from vit_jax.train.step import TaskLoss


def prepare(batch: CaptionBatch, key: Key | None) -> CaptionBatch:
    """The batch as it is: what is drawn on pictures is drawn where they are read."""
    return jax.tree.map(jnp.asarray, batch)


def captioning_loss(
    model: CaptionTransformer,
    batch: CaptionBatch,
    key: Key | None,
    *,
    recipe: CaptionRecipe,
    execution: BlockExecution = DEFAULT_EXECUTION,
) -> TaskLoss:
    """The losses of a batch in nats; its totals count captions, and of each the share of tokens foreseen.

    A key turns dropout and label smoothing on.
    """
    pad = model.config.pad_token
    given, wanted = batch.tokens[:, :-1], batch.tokens[:, 1:]
    images = batch.images.astype(jax.tree.leaves(model)[0].dtype)
    logits = model(images, batch.mask, given, given != pad, padding=recipe.padding, key=key, execution=execution)
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    ignored = pad if recipe.ignore_padding else None
    smoothing = recipe.label_smoothing if key is not None else 0.0
    total, count = caption_losses(
        logits, wanted, ignore_token=ignored, label_smoothing=smoothing, weights=batch.weights
    )
    content = wanted != pad
    hits = (logits.argmax(axis=-1) == wanted) & content
    share = hits.sum(axis=1) / jnp.maximum(content.sum(axis=1), 1)
    captions = batch.weights.sum()
    count = jnp.maximum(count, 1)
    return TaskLoss(total, count, Totals(total / count * captions, (share * batch.weights).sum(), captions))


def make_eval_step(recipe: CaptionRecipe) -> Callable[[Any, CaptionBatch], Totals]:
    """(model, batch) -> the sums over its captions, without dropout and smoothing."""

    def eval_step(model: Any, batch: CaptionBatch) -> Totals:
        return captioning_loss(model, prepare(batch, None), None, recipe=recipe).totals

    return jax.jit(eval_step, compiler_options=compiler_options(forward_only=True))
