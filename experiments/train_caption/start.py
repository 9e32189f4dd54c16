"""The model that a captioner's run starts from: a saved or released one, a new one, or one over a pretrained ViT."""

from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import jax
from flax import nnx

from caption import CONFIGS, CaptionConfig, CaptionTransformer, ResNetConfig
from caption.train.recipe import CaptionRecipe
from caption.vit_encoder import captioner_over_vit
from experiments.common.models import model_folder
from experiments.train_caption.run import CaptionRun
from vit_jax import InputError, VisionTransformer
from vit_jax.checkpoint import to_arrays
from weights_convert import load_pretrained

Model = TypeVar("Model", CaptionTransformer, VisionTransformer)


def starting_captioner(config: CaptionRun, vocab_size: int) -> CaptionTransformer:
    """Return the model that training starts from. Raises InputError if flags, weights and vocabulary do not agree."""
    recipe = config.recipe
    if config.weights is not None:
        return _load_captioner(config.weights, recipe, vocab_size)
    if recipe.model not in CONFIGS:
        raise InputError(f"unknown captioner {recipe.model!r}: one of {', '.join(CONFIGS)}")
    architecture = replace(CONFIGS[recipe.model], vocab_size=vocab_size)
    if config.encoder is None:
        return CaptionTransformer(_apply_recipe(architecture, recipe), rngs=nnx.Rngs(recipe.seed))
    hint = "no vision transformer; give one as the encoder"
    vit = _load(config.encoder, VisionTransformer, hint, image_size=recipe.longest)
    architecture = _apply_recipe(replace(architecture, encoder=ResNetConfig()), replace(recipe, longest=None))
    return captioner_over_vit(vit, architecture, rngs=nnx.Rngs(recipe.seed))


def _load_captioner(weights: str, recipe: CaptionRecipe, vocab_size: int) -> CaptionTransformer:
    model = _load(weights, CaptionTransformer, "no captioner; give one's folder, a run or a checkpoint")
    if model.config.vocab_size != vocab_size:
        raise InputError(
            f"the vocabulary has {vocab_size} WordPieces, and the model has {model.config.vocab_size}; "
            "give the --vocabulary that the weights were trained with"
        )
    architecture = _apply_recipe(model.config, recipe)
    if architecture.encoder != model.config.encoder:
        size = model.config.image_preprocess.size
        raise InputError(
            f"{weights}: its encoder takes images of {'x'.join(map(str, size))} pixels; give --longest {size[0]}"
        )
    shapes = jax.eval_shape(lambda: CaptionTransformer(architecture, rngs=nnx.Rngs(0)))
    return jax.tree.unflatten(jax.tree.structure(shapes), list(to_arrays(model).values()))


def _load(weights: str, kind: type[Model], hint: str, *, image_size: int | None = None) -> Model:
    path = Path(weights)
    source = model_folder(path) if path.is_dir() and (path / "metrics.jsonl").is_file() else weights
    model = load_pretrained(source, image_size=image_size)
    if not isinstance(model, kind):
        raise InputError(f"{weights}: {hint}")
    return model


def _apply_recipe(architecture: CaptionConfig, recipe: CaptionRecipe) -> CaptionConfig:
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
