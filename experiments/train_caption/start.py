"""What a captioner's run begins with: a saved or released captioner, a new one, or a new one over a pretrained ViT."""

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
    """The model that training starts from. Raises InputError where flags, weights and vocabulary do not fit."""
    recipe = config.recipe
    if config.weights is not None:
        model = _opened(config.weights, CaptionTransformer, "no captioner; give one's folder, a run or a checkpoint")
        settings = model.config
        if settings.vocab_size != vocab_size:
            raise InputError(
                f"{vocab_size} WordPieces, and the model has {settings.vocab_size}: another vocabulary; "
                "give the --vocabulary that the weights were trained with"
            )
        changed = _settled(settings, recipe)
        if changed.encoder != settings.encoder:
            size = settings.image_preprocess.size
            raise InputError(
                f"{config.weights}: its encoder takes images of {'x'.join(map(str, size))} pixels; "
                f"give --longest {size[0]}"
            )
        shapes = jax.eval_shape(lambda: CaptionTransformer(changed, rngs=nnx.Rngs(0)))
        return jax.tree.unflatten(jax.tree.structure(shapes), list(to_arrays(model).values()))
    if recipe.model not in CONFIGS:
        raise InputError(f"unknown captioner {recipe.model!r}: one of {', '.join(CONFIGS)}")
    settings = replace(CONFIGS[recipe.model], vocab_size=vocab_size)
    if config.encoder is None:
        return CaptionTransformer(_settled(settings, recipe), rngs=nnx.Rngs(recipe.seed))
    image_size = recipe.longest
    vit = _opened(config.encoder, VisionTransformer, "no vision transformer; give one as the encoder", image_size)
    settings = _settled(replace(settings, encoder=ResNetConfig()), replace(recipe, longest=None))
    return captioner_over_vit(vit, settings, rngs=nnx.Rngs(recipe.seed))


def _opened(weights: str, kind: type[Model], otherwise: str, image_size: int | None = None) -> Model:
    path = Path(weights)
    found = model_folder(path) if path.is_dir() and (path / "metrics.jsonl").is_file() else weights
    model = load_pretrained(found, image_size=image_size)
    if not isinstance(model, kind):
        raise InputError(f"{weights}: {otherwise}")
    return model


def _settled(settings: CaptionConfig, recipe: CaptionRecipe) -> CaptionConfig:
    """The architecture with what the recipe asks for. Raises InputError for more tokens than it has positions."""
    if recipe.max_length - 1 > settings.max_positions:
        raise InputError(
            f"captions of {recipe.max_length} tokens need {recipe.max_length - 1} positions, and the model has "
            f"{settings.max_positions}; lower --max-length"
        )
    if recipe.longest is not None:
        if isinstance(settings.encoder, ResNetConfig):
            preprocess = replace(settings.preprocess, longest=recipe.longest)
            settings = replace(settings, preprocess=preprocess)
        else:
            settings = replace(settings, encoder=settings.encoder.resized(recipe.longest))
    return settings if recipe.dropout is None else replace(settings, dropout=recipe.dropout)
