"""The recipe that the flags of train_caption start from."""

from dataclasses import replace
from typing import Any

from caption.train.recipe import RECIPES, CaptionRecipe
from caption.train.run_config import SCENES
from vit_jax import InputError


def choose_recipe(name: str | None, source: dict[str, Any], model: str | None) -> CaptionRecipe:
    """Return the named recipe, or the default one for the data and the weights.

    Raises InputError for weights together with a model or an encoder.
    """
    weights, encoder = source.get("weights"), source.get("encoder")
    if weights and (encoder or model is not None):
        raise InputError("--weights brings its own model; leave out --model and --encoder")
    if name is None:
        name = SCENES if source["data"] == SCENES else "catr" if weights else "small"
    recipe = RECIPES[name]
    if weights:
        recipe = replace(recipe, model=None)
    return replace(recipe, longest=None) if weights or encoder else recipe  # the size that they were trained at
