"""python -m experiments.finetune: fine-tune a pretrained vision transformer, or train a small one from scratch.

With no arguments: a small ViT on scikit-learn's digits, in about a minute on two CPU cores.
"""

import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from experiments.common.models import starting_model
from experiments.common.training import Curve, TrainingProgram, provenance, run_program
from vit_jax import VisionTransformer, count_parameters, save
from vit_jax.checkpoint import CONFIG
from vit_jax.data.augment.transforms import Augment, check_channels
from vit_jax.data.dataset import Dataset
from vit_jax.data.datasets import open_dataset
from vit_jax.data.loader import CachedImages
from vit_jax.errors import one_line_errors
from vit_jax.train.options import RunOptions
from vit_jax.train.recipe import RECIPES, Recipe
from vit_jax.train.run_folder import BEST, FORMAT, RunConfig, create_run_folder

DIGITS = "digits"
PUBLISHED = ("B_", "L_")  # prefixes of the large architectures


def choose_recipe(name: str | None, source: dict[str, Any], model: str | None) -> Recipe:
    """Return the named recipe, or the default one for the data, the weights and the model.

    With weights, images have the size that the weights were trained at, unless a flag says otherwise.
    """
    weights = source.get("weights")
    if name is None:
        is_large = weights or (model is not None and model.startswith(PUBLISHED))
        name = DIGITS if source["data"] == DIGITS else "pets" if is_large else "scratch"
    # The model and the size of a recipe are for training without weights, which bring their own. --model has to agree.
    return replace(RECIPES[name], model=None, image_size=None) if weights else RECIPES[name]


def open_images(
    data: Dataset, model: VisionTransformer, *, skip_corrupt: bool, cache_gb: float
) -> tuple[CachedImages, CachedImages]:
    """Open the training and the validation images at the model's size, with its channels."""
    preprocess = model.config.image_preprocess
    budget = int(cache_gb * 1e9)
    size = math.prod(preprocess.size) * model.config.in_channels
    train_budget = min(budget, size * len(data.train))
    images = [
        CachedImages(data.train, preprocess, budget=train_budget),
        CachedImages(data.val, preprocess, budget=budget - train_budget),
    ]
    cached = min(budget // size, len(data.train) + len(data.val))
    print(
        f"data: {data.name}, {len(data.train):,} training and {len(data.val):,} validation images, "
        f"{len(data.class_names)} classes; {cached:,} of them cached decoded, {cached * size / 1e6:,.0f} MB"
    )
    if skip_corrupt:
        for index, split in enumerate(("training", "validation")):
            readable = images[index].drop_corrupt()
            print(f"{len(images[index]) - len(readable)} unreadable {split} images skipped")
            images[index] = readable
    return images[0], images[1]


def open_model(config: RunConfig, num_classes: int) -> VisionTransformer:
    """Return the model that training starts from."""
    recipe = config.recipe
    return starting_model(
        name=recipe.model,
        weights=config.weights,
        num_classes=num_classes,
        image_size=recipe.image_size,
        in_channels=recipe.in_channels,
        dropout=recipe.dropout,
        drop_path=recipe.drop_path,
        seed=recipe.seed,
    )


def train(folder: Path, config: RunConfig, options: RunOptions, *, resume: bool, cache_gb: float) -> Any:
    """Train in a folder, or resume there; return the TrainOutcome. A new folder is created once all inputs are valid.

    Raises InputError for what the user can correct.
    """
    from vit_jax.train.run import run_task
    from vit_jax.train.sharding import make_mesh
    from vit_jax.train.task import classification_task

    recipe = config.recipe
    mesh = make_mesh(recipe.batch_size)
    data = open_dataset(config.data, data_dir=config.data_dir, val_fraction=config.val_fraction, seed=recipe.seed)
    model = open_model(config, len(data.class_names))
    check_channels(recipe.augment, model.config.in_channels)
    images = open_images(data, model, skip_corrupt=config.skip_corrupt, cache_gb=cache_gb)
    height, width = model.config.image_size
    origin = f"from {config.weights}" if config.weights else f"{recipe.model} from scratch"
    size = f"{height}x{width}{' (the size of the weights)' if config.weights and recipe.image_size is None else ''}"
    channels = "" if model.config.in_channels == 3 else f", {model.config.in_channels} channels"
    print(f"model: {origin}, {size}{channels}, {count_parameters(model):,} parameters")
    if not resume:
        create_run_folder(folder, config)

    def save_best(model: VisionTransformer, record: dict[str, Any]) -> None:
        save(model, folder / BEST, class_names=data.class_names, provenance=provenance(config, record))

    task = classification_task(model, recipe, *images, mesh, save_best=save_best, execution=options.execution)
    return run_task(folder, task, mesh, options, resume=resume, best_file=folder / BEST / CONFIG)


def report(folder: Path, config: RunConfig, best: dict[str, Any], seconds: float) -> None:
    """Print the best epoch, the files and what to do next."""
    print(f"best validation accuracy {best['val_accuracy']:.4f} in epoch {best['epoch']}")
    print(f"done in {seconds:.0f} s; written to {folder}/:")
    print("  best/          the best model, for vit_jax.load and the other programs")
    print("  checkpoints/   the last and the best state of the training")
    print("  curves.png, metrics.jsonl, config.json")
    print("your own images, one folder for each class (or names like cat_12.jpg):")
    print("  python -m experiments.finetune --data FOLDER --model B_16_imagenet1k --weights B_16_imagenet1k.pth")


PROGRAM = TrainingProgram(
    name="finetune",
    description="Fine-tune, or train from scratch.",
    config=RunConfig,
    format=FORMAT,
    default_data=DIGITS,
    recipes=RECIPES,
    recipe_help="digits for digits, pets with weights or a large model, else scratch",
    no_augment=Augment(),
    choose_recipe=choose_recipe,
    cache_gb=4.0,
    train=train,
    curve=lambda config: Curve("val_accuracy", "validation accuracy"),
    report=report,
)


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Run the command: 0 done, 2 a wrong input, 128 + signal when it was stopped and saved."""
    return run_program(PROGRAM, argv)


if __name__ == "__main__":
    sys.exit(main())
