"""Captioning as a task of the training loop: the loss, the validation, and the task itself."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from caption.data.loader import CaptionBatch, ExampleSource, caption_batches
from caption.model import CaptionTransformer
from caption.train.optim import caption_losses, make_recipe_optimizer
from caption.train.recipe import CaptionRecipe
from vit_jax import compiler_options
from vit_jax.attention import Key
from vit_jax.data.batches import batches_per_epoch
from vit_jax.execution import DEFAULT_EXECUTION, BlockExecution
from vit_jax.train.loop import TrainTask
from vit_jax.train.sharding import local_replica, process_rows, shard_batch
from vit_jax.train.state import Totals, validation_means
from vit_jax.train.step import StepSettings, TaskLoss

SCORES: dict[str, Callable[[dict[str, Any]], float]] = {  # by CaptionRecipe.best_by; the highest is the best
    "loss": lambda record: -record["val_loss"],
    "cider": lambda record: record["val_cider"],
    "exact": lambda record: record["val_exact"],
}


def prepare(batch: CaptionBatch, key: Key | None) -> CaptionBatch:
    """Return the batch as it is: its images were augmented when they were read."""
    return jax.tree.map(jnp.asarray, batch)


def captioning_loss(
    model: CaptionTransformer,
    batch: CaptionBatch,
    key: Key | None,
    *,
    recipe: CaptionRecipe,
    execution: BlockExecution = DEFAULT_EXECUTION,
) -> TaskLoss:
    """Return the loss of a batch in nats. Its totals count captions and, per caption, the fraction of correct tokens.

    A key turns dropout and label smoothing on.
    """
    pad = model.config.pad_token
    tokens, targets = batch.tokens[:, :-1], batch.tokens[:, 1:]
    logits = model(
        batch.images, batch.mask, tokens, tokens != pad, padding=recipe.padding, key=key, execution=execution
    )
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    ignored = pad if recipe.ignore_padding else None
    smoothing = recipe.label_smoothing if key is not None else 0.0
    total, count = caption_losses(
        logits, targets, ignore_token=ignored, label_smoothing=smoothing, weights=batch.weights
    )
    content = targets != pad
    hits = (logits.argmax(axis=-1) == targets) & content
    accuracy = hits.sum(axis=1) / jnp.maximum(content.sum(axis=1), 1)
    captions = batch.weights.sum()
    count = jnp.maximum(count, 1)
    return TaskLoss(total, count, Totals(total / count * captions, (accuracy * batch.weights).sum(), captions))


def make_eval_step(recipe: CaptionRecipe) -> Callable[[Any, CaptionBatch], Totals]:
    """Return (model, batch) -> the sums over its captions, without dropout and label smoothing."""

    def eval_step(model: Any, batch: CaptionBatch) -> Totals:
        return captioning_loss(model, prepare(batch, None), None, recipe=recipe).totals

    return jax.jit(eval_step, compiler_options=compiler_options(forward_only=True))


def captioning_task(
    model: CaptionTransformer,
    recipe: CaptionRecipe,
    train: ExampleSource,
    val: ExampleSource,
    mesh: Mesh,
    *,
    measure: Callable[[CaptionTransformer], dict[str, float]],
    save_best: Callable[[CaptionTransformer, dict[str, Any]], None],
    execution: BlockExecution = DEFAULT_EXECUTION,
) -> TrainTask:
    """Return the task of training a captioner by a recipe.

    measure:   model -> measures of the captions that it generates for the validation images: see measures.py.
    save_best: (model, record of the epoch) -> None, called in every process for every best epoch so far.
    """
    rows, size = process_rows(recipe.batch_size), model.config.image_preprocess.size
    steps = batches_per_epoch(len(train), recipe.batch_size)
    eval_step = make_eval_step(recipe)

    def batches(epoch: int, start: int) -> Iterator[Any]:
        options: dict[str, Any] = dict(seed=recipe.seed, epoch=epoch, start=start, rows=rows)
        for batch in caption_batches(train, recipe.batch_size, size, **options):
            yield shard_batch(mesh, batch)

    def validate(model: Any) -> dict[str, float]:
        ordered = caption_batches(val, recipe.batch_size, size, rows=rows)
        means = validation_means(eval_step(model, shard_batch(mesh, batch)) for batch in ordered)
        return means | measure(local_replica(mesh, model))

    def keep_best(model: Any, record: dict[str, Any]) -> None:
        save_best(local_replica(mesh, model), record)

    return TrainTask(
        model=model,
        tx=make_recipe_optimizer(recipe, model, steps),
        prepare=prepare,
        loss_of=functools.partial(captioning_loss, recipe=recipe, execution=execution),
        settings=StepSettings.from_recipe(recipe),
        batches=batches,
        batch_size=recipe.batch_size,
        steps_per_epoch=steps,
        epochs=recipe.epochs,
        validate=validate,
        score=SCORES[recipe.best_by],
        keep_best=keep_best,
        patience=recipe.patience,
    )
