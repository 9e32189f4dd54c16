"""Adapt a model to a recipe and to the classes of the data."""

from dataclasses import replace
from typing import Any

from vit_jax.checkpoint import from_arrays, to_arrays, with_image_size, with_in_channels
from vit_jax.config import MULTI_LABEL, SINGLE_LABEL
from vit_jax.data.dataset import Split
from vit_jax.model import VisionTransformer
from vit_jax.notes import note
from vit_jax.train.head import start_head
from vit_jax.train.recipe import Recipe, TrainRecipe


def task_of(split: Split) -> str:
    """Return the task of a model for the labels of a split; see vit_jax.ViTConfig."""
    return MULTI_LABEL if split.is_multi_label else SINGLE_LABEL


def adapt_model(
    model: VisionTransformer, recipe: Recipe, num_classes: int, *, task: str = SINGLE_LABEL
) -> VisionTransformer:
    """Return the model with a head for the classes and the task, and with what the recipe sets of a model.

    These are the image size, the channels, dropout, drop path, the background and max_value; None leaves the model's
    own. A head for other classes or another task, and a new size, are printed. Raises InputError for channels that do
    not fit.
    """
    size = recipe.image_size
    if size is not None and size != model.config.image_size:
        before, after = ("x".join(map(str, pair)) for pair in (model.config.image_size, size))
        note(f"model: resized from {before} to {after} pixels, as the recipe says")
        model = with_image_size(model, size)
    if recipe.in_channels is not None:
        model = with_in_channels(model, recipe.in_channels)
    model, description = start_head(model, num_classes, task)
    if description:
        note(description)
    model = adapt_preprocess(model, recipe)
    changed: dict[str, Any] = {}
    if recipe.dropout is not None:
        changed |= dict(dropout=recipe.dropout, attention_dropout=recipe.dropout)
    if recipe.drop_path is not None:
        changed |= dict(drop_path=recipe.drop_path)
    config = replace(model.config, **changed)
    return model if config == model.config else from_arrays(config, to_arrays(model))


def adapt_preprocess(model: VisionTransformer, recipe: TrainRecipe) -> VisionTransformer:
    """Return the model with the background and the max_value that a recipe sets."""
    preprocess = replace(model.config.preprocess, **decoding_settings(recipe))
    if preprocess == model.config.preprocess:
        return model
    return from_arrays(replace(model.config, preprocess=preprocess), to_arrays(model))


def decoding_settings(recipe: TrainRecipe) -> dict[str, Any]:
    """Return what a recipe sets of the fields of a Preprocess by which image files are decoded."""
    settings = {"background": recipe.background, "max_value": recipe.max_value}
    return {name: value for name, value in settings.items() if value is not None}
