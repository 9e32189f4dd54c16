"""python -m experiments.finetune: fine-tune a pretrained vision transformer, or train a small one from scratch.

With no arguments: a small ViT on scikit-learn's digits, in about a minute on two CPU cores.
"""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from experiments.common.models import starting_model
from experiments.common.training import Curve, TrainingProgram, run_program
from vit_jax import CONFIGS, InputError, VisionTransformer, count_parameters
from vit_jax.cli import program_name
from vit_jax.data.augment.transforms import Augment
from vit_jax.data.dataset import Dataset
from vit_jax.errors import one_line_errors
from vit_jax.notes import is_quiet, note
from vit_jax.train import RECIPES, FitResult, Recipe, RunOptions, fit
from vit_jax.train.adapt import task_of
from vit_jax.train.measure import measure_of
from vit_jax.train.run_data import open_data, open_new_data
from vit_jax.train.run_folder import FORMAT, RunConfig
from weights_convert.hub.releases import NEVER_RELEASED, RELEASES
from weights_convert.resolve import locate

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


def choose_weights(name: str | None, source: dict[str, Any], model: str | None) -> str | None:
    """Return the release of the model to train, None for a model without one and for --from-scratch.

    A model of that name is not trained from scratch unnoticed. Raises InputError if a path of that name exists.
    """
    published = model or (RECIPES[name].model if name else None)
    if source.get("from_scratch") or published not in (*RELEASES, *NEVER_RELEASED):
        return None
    if Path(published).exists():
        raise InputError(f"{published}: exists here, and is a release too; give --weights with its path, or rename it")
    return published


def fetch_release(name: str) -> None:
    """Fetch the released weights of a model before anything else is opened. Raises InputError if that fails."""
    try:
        locate(name)
    except InputError as error:
        raise InputError(f"{error}; to train without weights, give --model {name} --from-scratch") from error


def open_model(config: RunConfig, data: Dataset) -> VisionTransformer:
    """Return the model that training starts from."""
    recipe = config.recipe
    return starting_model(
        name=recipe.model,
        weights=config.weights,
        num_classes=len(data.class_names),
        class_names=data.class_names,
        task=task_of(data.train),
        image_size=recipe.image_size,
        in_channels=recipe.in_channels,
        seed=recipe.seed,
    )


def train(folder: Path, config: RunConfig, options: RunOptions, *, resume: bool, cache_gb: float) -> FitResult:
    """Train in a folder, or resume there. Raises InputError for what the user can correct."""
    recipe = config.recipe
    if config.weights in CONFIGS:
        fetch_release(config.weights)
    data = open_data(config) if resume else open_new_data(config)
    model = open_model(config, data)
    height, width = model.config.image_size
    origin = f"from {config.weights}" if config.weights else f"{recipe.model} from scratch, without weights"
    size = f"{height}x{width}{' (the size of the weights)' if config.weights and recipe.image_size is None else ''}"
    channels = "" if model.config.in_channels == 3 else f", {model.config.in_channels} channels"
    note(f"model: {origin}, {size}{channels}, {count_parameters(model):,} parameters")
    return fit(
        model, data, None, recipe, out=folder, resume=resume, options=options, cache_gb=cache_gb, config=config,
        donate=True,
    )  # fmt: skip


def report(folder: Path, config: RunConfig, best: dict[str, Any], seconds: float) -> None:
    """Print the best epoch, the files and what to do next."""
    measure = measure_of(best)
    print(f"best {measure.label} {best[measure.name]:.4f} in epoch {best['epoch']}")
    print(f"done in {seconds:.0f} s; written to {folder}/{'' if is_quiet() else ':'}")
    note("  best/          the best model, for vit_jax.load and the other programs")
    note("  checkpoints/   the last and the best state of the training")
    note("  curves.png, metrics.jsonl, config.json, split.json.gz")
    note("your own images, one folder for each class (or names like cat_12.jpg):")
    command = program_name("experiments.finetune")
    note(f"  {command} --data FOLDER --model B_16_imagenet1k")


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
    choose_weights=choose_weights,
    cache_gb=4.0,
    train=train,
    curve=lambda config, record: Curve(*measure_of(record)),
    report=report,
)


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Run the command: 0 done, 2 a wrong input, 128 + signal when it was stopped and saved."""
    return run_program(PROGRAM, argv)


if __name__ == "__main__":
    sys.exit(main())
