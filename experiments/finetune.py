"""python -m experiments.finetune: fine-tune a pretrained vision transformer, or train a small one from scratch.

With no arguments: a small ViT on scikit-learn's digits, in about a minute on two CPU cores.
"""

import argparse
import functools
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from experiments.common import runtime
from experiments.common.flags import add_recipe_flags, changed_flags, override_recipe
from experiments.common.models import BEST, starting_model
from vit_jax import InputError, VisionTransformer, count_parameters, save
from vit_jax.checkpoint import CONFIG
from vit_jax.cli import Parser, fraction, non_negative
from vit_jax.data.batches import batches_per_epoch
from vit_jax.data.dataset import Dataset
from vit_jax.data.datasets import DATA_HELP, open_dataset
from vit_jax.data.loader import CachedImages, ordered_batches, training_batches
from vit_jax.errors import one_line_errors
from vit_jax.train import distributed, options
from vit_jax.train import run_folder as run
from vit_jax.train.options import RunOptions
from vit_jax.train.recipe import RECIPES
from vit_jax.train.run_folder import RunConfig


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m experiments.finetune", description="Fine-tune, or train from scratch.")
    parser.add_argument("--data", default=argparse.SUPPRESS, help=f"{DATA_HELP} (default: digits)")
    parser.add_argument("--data-dir", default=argparse.SUPPRESS, help="where downloads and tfds sets lie")
    parser.add_argument("--val-fraction", type=fraction, default=argparse.SUPPRESS, help="held out (default: 0.2)")
    parser.add_argument("--skip-corrupt", action="store_true", help="check every image first, go on without bad ones")
    parser.add_argument("--weights", default=argparse.SUPPRESS, help="a saved model, a run, or a foreign .pth")
    parser.add_argument("--recipe", choices=sorted(RECIPES), help="default: digits for digits, pets with weights or "
                        "a large model, else scratch")  # fmt: skip
    parser.add_argument("--out", help="the run's folder (default: runs/DATA)")
    parser.add_argument("--resume", nargs="?", const="", metavar="RUN", help="go on with that run (or --out's)")
    parser.add_argument("--cache-gb", type=non_negative, default=4.0, help="memory for decoded images (default: 4)")
    add_recipe_flags(parser)
    options.add_flags(parser)
    distributed.add_flags(parser)
    return parser


def _default_recipe(data: str, model: str | None, weights: str | None) -> str:
    if data == "digits":
        return "digits"
    return "pets" if weights or (model is not None and model[:2] in ("B_", "L_")) else "scratch"


def _new_run(args: argparse.Namespace) -> tuple[Path, RunConfig]:
    given = vars(args)
    data, weights = given.get("data", "digits"), given.get("weights")
    name = args.recipe or _default_recipe(data, given.get("model"), weights)
    recipe = RECIPES[name]
    if weights:  # the recipe's own model is for those who give no weights; --model is held against them
        recipe = replace(recipe, model=None)
    config = RunConfig(
        recipe=override_recipe(recipe, args),
        data=run.absolute_if_path(data),
        data_dir=given.get("data_dir"),
        val_fraction=given.get("val_fraction", 0.2),
        skip_corrupt=args.skip_corrupt,
        weights=run.absolute_if_path(weights) if weights else None,
    )
    folder = Path(args.out) if args.out else run.default_folder(Path(data.replace(":", "_")).name)
    return folder, config


def _old_run(args: argparse.Namespace) -> tuple[Path, RunConfig]:
    if not (args.resume or args.out):
        raise InputError("--resume needs the run's folder: --resume RUN")
    folder = Path(args.resume or args.out)
    config = run.read_run_config(folder)
    changed = changed_flags(config.recipe, args) + run.changed_source_flags(config, vars(args))
    if changed:
        raise InputError(f"{folder}: a resumed run keeps its settings; leave out {', '.join(changed)}")
    return folder, config


class Images(NamedTuple):
    """The data set and its two splits, ready to be read at the model's size."""

    data: Dataset
    train: CachedImages
    val: CachedImages


def _open_images(data: Dataset, model: VisionTransformer, *, skip_corrupt: bool, cache_gb: float) -> Images:
    preprocess = model.config.preprocess
    assert preprocess is not None
    budget = int(cache_gb * 1e9)
    size = preprocess.size[0] * preprocess.size[1] * 3
    share_of_train = min(budget, size * len(data.train))
    pictures = [
        CachedImages(data.train, preprocess, budget=share_of_train),
        CachedImages(data.val, preprocess, budget=budget - share_of_train),
    ]
    fitting = min(budget // size, len(data.train) + len(data.val))
    print(
        f"data: {data.name}, {len(data.train):,} training and {len(data.val):,} validation images, "
        f"{len(data.class_names)} classes; {fitting:,} of them kept decoded, {fitting * size / 1e6:,.0f} MB"
    )
    if skip_corrupt:
        for place, split in enumerate(("training", "validation")):
            count = len(pictures[place])
            pictures[place] = pictures[place].drop_corrupt()
            print(f"{count - len(pictures[place])} unreadable {split} images skipped")
    return Images(data, *pictures)


def _start(folder: Path, config: RunConfig, resume: bool, cache_gb: float) -> tuple[Any, Images]:
    """The model at the run's beginning, and the images; a new run's folder is made once both are sound."""
    recipe = config.recipe
    data = open_dataset(config.data, data_dir=config.data_dir, val_fraction=config.val_fraction, seed=recipe.seed)
    model = starting_model(
        name=recipe.model,
        weights=config.weights,
        num_classes=len(data.class_names),
        image_size=recipe.image_size,
        dropout=recipe.dropout,
        drop_path=recipe.drop_path,
        seed=recipe.seed,
    )
    images = _open_images(data, model, skip_corrupt=config.skip_corrupt, cache_gb=cache_gb)
    height, width = model.config.image_size
    origin = f"from {config.weights}" if config.weights else f"{recipe.model} from scratch"
    print(f"model: {origin}, {height}x{width}, {count_parameters(model):,} parameters")
    if not resume and distributed.is_first_process():
        run.create_run_folder(folder, config)
    distributed.sync_processes("run folder")
    return model, images


def train(folder: Path, config: RunConfig, how: RunOptions, *, resume: bool, cache_gb: float = 4.0) -> Any:
    """Run or resume training in `folder`; answers the Outcome. Raises InputError for what the user can mend."""
    import jax
    import jax.numpy as jnp

    from vit_jax.data.augment.mix import MixConfig
    from vit_jax.train.classify import classification_loss, make_eval_step, make_prepare
    from vit_jax.train.loop import TrainTask
    from vit_jax.train.lora import ATTENTION, MLP, LoRAModel, add_lora, merge_lora
    from vit_jax.train.optim import make_optimizer, make_schedule
    from vit_jax.train.run import run_task
    from vit_jax.train.sharding import local_replica, make_mesh, process_rows, shard_batch
    from vit_jax.train.step import StepSettings, TaskLoss

    recipe = config.recipe
    mesh, rows = make_mesh(recipe.batch_size), process_rows(recipe.batch_size)
    model, images = _start(folder, config, resume, cache_gb)
    preprocess = model.config.preprocess
    steps = batches_per_epoch(len(images.train), recipe.batch_size)
    eval_step = make_eval_step(preprocess)

    def batches(epoch: int, start: int) -> Iterator[Any]:
        options: dict[str, Any] = dict(seed=recipe.seed, epoch=epoch, start=start, rows=rows)
        for batch in training_batches(images.train, recipe.batch_size, **options):
            yield shard_batch(mesh, batch)

    def whole(learnt: Any) -> VisionTransformer:
        return merge_lora(learnt, recipe.lora_alpha) if isinstance(learnt, LoRAModel) else learnt

    def loss(learnt: Any, *arguments: Any) -> TaskLoss:
        return classification_loss(
            whole(learnt), *arguments, execution=how.execution, label_smoothing=recipe.label_smoothing
        )

    def validate(learnt: Any) -> dict[str, float]:
        model = jax.jit(whole)(learnt) if recipe.train == "lora" else learnt
        ordered = ordered_batches(images.val, recipe.batch_size, rows=rows)
        parts = (eval_step(model, shard_batch(mesh, batch))[0] for batch in ordered)
        total = jax.device_get(functools.reduce(lambda a, b: jax.tree.map(jnp.add, a, b), parts))
        return {"val_loss": float(total.loss / total.images), "val_accuracy": float(total.correct / total.images)}

    def keep_best(learnt: Any, record: dict[str, Any]) -> None:
        provenance = {"data": config.data, "weights": config.weights, "recipe": recipe.as_dict(), "record": record}
        model = whole(local_replica(mesh, learnt))
        if distributed.is_first_process():
            save(model, folder / BEST, class_names=images.data.class_names, provenance=provenance)

    mixing = MixConfig(
        recipe.mixup, recipe.cutmix, len(images.data.class_names) if recipe.mixup or recipe.cutmix else 0
    )
    learnt: Any = model
    if recipe.train == "lora":
        targets = ATTENTION if recipe.lora_targets == "attention" else (*ATTENTION, *MLP)
        learnt = add_lora(model, recipe.lora_rank, jax.random.key(recipe.seed), targets)
    task = TrainTask(
        model=learnt,
        tx=make_optimizer(recipe, make_schedule(recipe, steps), learnt),
        prepare=make_prepare(recipe.augment, preprocess, mixing),
        loss_of=loss,
        settings=StepSettings(recipe.seed, recipe.accumulate, recipe.dtype, recipe.ema),
        batches=batches,
        batch_size=recipe.batch_size,
        steps_per_epoch=steps,
        epochs=recipe.epochs,
        validate=validate,
        score=lambda record: record["val_accuracy"],
        keep_best=keep_best,
        patience=recipe.patience,
    )
    try:
        return run_task(folder, task, mesh, how, resume=resume, best_kept=folder / BEST / CONFIG)
    finally:
        if distributed.is_first_process():
            _draw(folder, config)


def _draw(folder: Path, config: RunConfig) -> None:
    from experiments.common.plots import plot_curves
    from vit_jax.train.logging import read_metrics

    epochs = [record for record in read_metrics(folder / "metrics.jsonl") if "val_accuracy" in record]
    if epochs:
        name = config.recipe.model or Path(config.weights or "").stem
        plot_curves(epochs, folder / "curves.png", title=f"{name} on {Path(config.data).name}")


def _report(folder: Path, outcome: Any, began: float) -> int:
    if outcome.signal is not None:
        name = signal.Signals(outcome.signal).name
        print(f"\n{name}: saved at step {int(outcome.state.step)}; go on with")
        print(f"  python -m experiments.finetune --resume {folder}")
        return 128 + outcome.signal
    best = outcome.best
    print(f"best validation accuracy {best['val_accuracy']:.4f} in epoch {best['epoch']}")
    print(f"done in {time.monotonic() - began:.0f} s; written to {folder}/:")
    print("  best/          the best model, for vit_jax.load and the other programs")
    print("  checkpoints/   the last and the best state of the training")
    print("  curves.png, metrics.jsonl, config.json")
    print("your own images, one folder for each class (or names like cat_12.jpg):")
    print("  python -m experiments.finetune --data FOLDER --model B_16_imagenet1k --weights B_16_imagenet1k.pth")
    return 0


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Run the command: 0 done, 2 a wrong input, 128 + signal when it was stopped and saved."""
    began = time.monotonic()
    args = _parser().parse_args(argv)
    resume = args.resume is not None
    folder, config = _old_run(args) if resume else _new_run(args)
    if not resume and not args.process:  # of several processes the first one makes it
        run.check_unused(folder)
    runtime.configure(compile_cache=args.compile_cache)
    distributed.initialize(args)
    outcome = train(folder, config, options.parse_run_options(args), resume=resume, cache_gb=args.cache_gb)
    return _report(folder, outcome, began)


if __name__ == "__main__":
    sys.exit(main())
