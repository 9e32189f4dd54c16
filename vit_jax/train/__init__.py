"""Training: fit and its recipes; the steps, schedules, checkpoints and devices that it uses."""

from vit_jax.train._fit import fit
from vit_jax.train.options import RunOptions
from vit_jax.train.recipe import RECIPES, Recipe
from vit_jax.train.result import FitResult, TrainingStopped

__all__ = ["RECIPES", "FitResult", "Recipe", "RunOptions", "TrainingStopped", "fit"]
