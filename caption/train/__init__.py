"""Training of captioners: fit, its recipes, the loss, the optimizer and the task."""

from caption.train._fit import fit
from caption.train.recipe import RECIPES, CaptionRecipe

__all__ = ["RECIPES", "CaptionRecipe", "fit"]
