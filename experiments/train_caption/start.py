"""The model that a captioner's run starts from: a saved or released one, a new one, or one over a pretrained ViT."""

from dataclasses import replace
from typing import Any

from flax import nnx

from caption import CONFIGS, CaptionTransformer, ResNetConfig
from caption.train.adapt import adapt_architecture, adapt_captioner, apply_recipe
from caption.train.recipe import CaptionRecipe
from caption.train.run_config import CaptionRun
from caption.vit_encoder import captioner_over_vit
from vit_jax import InputError
from vit_jax.suggest import describe_unknown
from vit_jax.train.adapt import adapt_preprocess
from weights_convert.model_types import CAPTION_MODEL, IMAGE_MODEL, ModelType
from weights_convert.resolve import find_source, open_source


def check_sources(config: CaptionRun) -> None:
    """Raise InputError, without reading weights, if a model that a run starts from is missing or of the wrong type."""
    for source, wanted in ((config.weights, CAPTION_MODEL), (config.encoder, IMAGE_MODEL)):
        if source is not None:
            find_source(source, wanted=wanted)


def starting_captioner(config: CaptionRun, vocab_size: int) -> CaptionTransformer:
    """Return the model that training starts from. Raises InputError if flags, weights and vocabulary do not agree."""
    recipe = config.recipe
    if config.weights is not None:
        return _load_captioner(config.weights, recipe, vocab_size)
    if recipe.model not in CONFIGS:
        raise InputError(describe_unknown("captioner", recipe.model, CONFIGS))
    architecture = replace(CONFIGS[recipe.model], vocab_size=vocab_size)
    if config.encoder is None:
        architecture = adapt_architecture(apply_recipe(architecture, recipe), recipe)
        return CaptionTransformer(architecture, rngs=nnx.Rngs(recipe.seed))
    vit = _load(config.encoder, IMAGE_MODEL, image_size=recipe.longest)
    vit = adapt_preprocess(vit, recipe)
    architecture = apply_recipe(replace(architecture, encoder=ResNetConfig()), replace(recipe, longest=None))
    return captioner_over_vit(vit, architecture, rngs=nnx.Rngs(recipe.seed))


def _load_captioner(weights: str, recipe: CaptionRecipe, vocab_size: int) -> CaptionTransformer:
    model = _load(weights, CAPTION_MODEL)
    if model.config.vocab_size != vocab_size:
        raise InputError(
            f"the vocabulary has {vocab_size} WordPieces, and the model has {model.config.vocab_size}; "
            "give the --vocabulary that the weights were trained with"
        )
    return adapt_captioner(model, recipe, name=weights)


def _load(weights: str, wanted: ModelType, *, image_size: int | None = None) -> Any:
    return open_source(find_source(weights, wanted=wanted), wanted=wanted, image_size=image_size).model
