"""Image classification as a task of the training loop."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.sharding import Mesh

from vit_jax.attention import Key
from vit_jax.data.augment.mix import NO_MIX, MixConfig
from vit_jax.data.batches import batches_per_epoch
from vit_jax.data.loader import CachedImages, ordered_batches, training_batches
from vit_jax.execution import DEFAULT_EXECUTION, BlockExecution
from vit_jax.model import VisionTransformer
from vit_jax.train.classify import ClassifierInputs, classification_loss, make_eval_step, make_prepare
from vit_jax.train.loop import TrainTask
from vit_jax.train.lora import ATTENTION, MLP, LoRAModel, add_lora, merge_lora
from vit_jax.train.objective import EvaluatedBatch, check_task, choose_objective
from vit_jax.train.optim import make_optimizer, make_schedule
from vit_jax.train.recipe import Recipe
from vit_jax.train.sharding import local_replica, process_rows, shard_batch
from vit_jax.train.step import StepSettings, TaskLoss


def classification_task(
    model: VisionTransformer,
    recipe: Recipe,
    train: CachedImages,
    val: CachedImages,
    mesh: Mesh,
    *,
    save_best: Callable[[VisionTransformer, dict[str, Any]], None],
    execution: BlockExecution = DEFAULT_EXECUTION,
) -> TrainTask:
    """Return the task of training a model on images by a recipe.

    save_best: (model, record of the epoch) -> None, called in every process for every best epoch so far.
    Raises InputError if the images have sets of labels and the model one label for each image, or the reverse.
    """
    check_task(model.config, train.split)
    rows = process_rows(recipe.batch_size)
    steps = batches_per_epoch(len(train), recipe.batch_size)
    parameters = _trained_parameters(model, recipe)
    objective = choose_objective(train.split, model.config.num_classes, recipe.balance)
    eval_step = make_eval_step(model.config.preprocess, objective.eval_loss)

    def batches(epoch: int, start: int) -> Iterator[Any]:
        balanced = recipe.balance == "sampler"
        options: dict[str, Any] = dict(seed=recipe.seed, epoch=epoch, start=start, rows=rows, balanced=balanced)
        for batch in training_batches(train, recipe.batch_size, **options):
            yield shard_batch(mesh, batch)

    def merge(parameters: Any) -> VisionTransformer:
        return merge_lora(parameters, recipe.lora_alpha) if isinstance(parameters, LoRAModel) else parameters

    def loss_of(parameters: Any, inputs: ClassifierInputs, key: Key | None) -> TaskLoss:
        options: dict[str, Any] = dict(execution=execution, label_smoothing=recipe.label_smoothing, loss=objective.loss)
        return classification_loss(merge(parameters), inputs, key, **options)

    def validate(parameters: Any) -> dict[str, float]:
        model = jax.jit(merge)(parameters) if recipe.train == "lora" else parameters
        ordered = (shard_batch(mesh, batch) for batch in ordered_batches(val, recipe.batch_size, rows=rows))
        return objective.measures(
            EvaluatedBatch(*eval_step(model, batch), batch.labels, batch.weights) for batch in ordered
        )

    def keep_best(parameters: Any, record: dict[str, Any]) -> None:
        save_best(merge(local_replica(mesh, parameters)), record)

    return TrainTask(
        model=parameters,
        tx=make_optimizer(recipe, make_schedule(recipe, steps), parameters),
        prepare=make_prepare(recipe.augment, model.config.preprocess, _mixing(recipe, model.config.num_classes)),
        loss_of=loss_of,
        settings=StepSettings.from_recipe(recipe),
        batches=batches,
        batch_size=recipe.batch_size,
        steps_per_epoch=steps,
        epochs=recipe.epochs,
        validate=validate,
        score=lambda record: record[objective.best_by],
        keep_best=keep_best,
        patience=recipe.patience,
    )


def _trained_parameters(model: VisionTransformer, recipe: Recipe) -> Any:
    if recipe.train != "lora":
        return model
    targets = ATTENTION if recipe.lora_targets == "attention" else (*ATTENTION, *MLP)
    return add_lora(model, recipe.lora_rank, jax.random.key(recipe.seed), targets)


def _mixing(recipe: Recipe, num_classes: int) -> MixConfig:
    return MixConfig(recipe.mixup, recipe.cutmix, num_classes) if recipe.mixup or recipe.cutmix else NO_MIX
