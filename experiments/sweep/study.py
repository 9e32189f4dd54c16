"""The published fine-tuning study on Oxford-IIIT Pet, and a small one that a laptop finishes in minutes."""

from dataclasses import replace
from pathlib import Path

from vit_jax.train.recipe import RECIPES, Recipe
from vit_jax.train.run_folder import RunConfig

# Best validation accuracies that the study's authors report for PyTorch-Pretrained-ViT's checkpoints fine-tuned on
# Oxford-IIIT Pet (recipe "pets": 384 x 384, batch 16, AdamW 1e-5), by architecture, on 1,500 validation images.
PUBLISHED: dict[str, float] = {
    "B_16_imagenet1k": 0.9433,
    "L_32_imagenet1k": 0.9383,
    "B_32_imagenet1k": 0.9249,
    "B_16": 0.9155,
    "L_32": 0.9062,
    "B_32": 0.8823,
}
STUDY_DATA, STUDY_VAL = "oxford_iiit_pet", 1500
STUDY_SIZE = ["--image-size", "384"]  # of all six, three of which were trained at 224

# The same question on a small scale: two widths, three patch sizes, from scratch.
QUICK_DIGITS = ("Nano_4", "Nano_6", "Nano_8", "Pico_4", "Pico_6", "Pico_8")
QUICK_PICTURES = ("Mini_16", "Mini_32")
QUICK_FLAGS = {
    "digits": ["--recipe", "digits", "--epochs", "14"],
    "pictures": ["--recipe", "scratch", "--epochs", "12", "--image-size", "96"],
}


def model_name(config: RunConfig) -> str:
    """Return the name of a run's architecture, or of the file or folder that its weights came from."""
    return config.recipe.model or Path(config.weights or "").stem


def published_accuracy(config: RunConfig) -> float | None:
    """Return the study's accuracy for a run with its data, weights and recipe; None for any other run.

    The epochs, the seed, gradient accumulation and early stopping may differ from the study's.
    """
    name = model_name(config)
    is_pretrained = config.weights is not None and Path(config.weights).stem == name
    is_study = config.data == STUDY_DATA and _comparable(config.recipe) == _comparable(RECIPES["pets"])
    return PUBLISHED.get(name) if is_pretrained and is_study else None


def _comparable(recipe: Recipe) -> Recipe:
    return replace(recipe, model=None, epochs=1, seed=0, accumulate=1, patience=0)
