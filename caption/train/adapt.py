"""Adapt a captioner to a recipe."""

from dataclasses import replace

from caption.checkpoint import abstract_model
from caption.config import CaptionConfig, ResNetConfig
from caption.model import CaptionTransformer
from caption.train.recipe import CaptionRecipe
from vit_jax.checkpoint import fill_model, to_arrays
from vit_jax.errors import InputError
from vit_jax.train.adapt import decoding_settings


def adapt_captioner(model: CaptionTransformer, recipe: CaptionRecipe, *, name: str = "the model") -> CaptionTransformer:
    """Return the model with the image size, dropout, background and max_value of a recipe, where it sets them.

    Raises InputError with the model's name for captions or images of a size that it cannot take.
    """
    config = apply_recipe(model.config, recipe)
    if config.encoder != model.config.encoder:
        size = model.config.image_preprocess.size
        raise InputError(
            f"{name}: its encoder takes images of {'x'.join(map(str, size))} pixels; give --longest {size[0]}"
        )
    config = adapt_architecture(config, recipe)
    return model if config == model.config else fill_model(abstract_model(config), to_arrays(model))


def apply_recipe(architecture: CaptionConfig, recipe: CaptionRecipe) -> CaptionConfig:
    """Return the architecture with the image size and the dropout of a recipe.

    Raises InputError for captions of more tokens than the model has positions.
    """
    if recipe.max_length - 1 > architecture.max_positions:
        raise InputError(
            f"captions of {recipe.max_length} tokens need {recipe.max_length - 1} positions, and the model has "
            f"{architecture.max_positions}; lower --max-length"
        )
    if recipe.longest is not None:
        if isinstance(architecture.encoder, ResNetConfig):
            preprocess = replace(architecture.preprocess, longest=recipe.longest)
            architecture = replace(architecture, preprocess=preprocess)
        else:
            architecture = replace(architecture, encoder=architecture.encoder.resized(recipe.longest))
    return architecture if recipe.dropout is None else replace(architecture, dropout=recipe.dropout)


def adapt_architecture(architecture: CaptionConfig, recipe: CaptionRecipe) -> CaptionConfig:
    """Return the architecture with the background and the max_value that a recipe sets."""
    settings = decoding_settings(recipe)
    if isinstance(architecture.encoder, ResNetConfig):
        return replace(architecture, preprocess=replace(architecture.preprocess, **settings))
    preprocess = replace(architecture.encoder.preprocess, **settings)
    return replace(architecture, encoder=replace(architecture.encoder, preprocess=preprocess))
