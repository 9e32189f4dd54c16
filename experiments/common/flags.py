"""Flags that override a recipe: one for each of its numbers, absent unless given."""

import argparse
from dataclasses import asdict, fields, replace
from typing import Any

from vit_jax import InputError
from vit_jax.checkpoint import lists_to_tuples
from vit_jax.cli import fraction, image_size, non_negative, positive_int
from vit_jax.data.augment.transforms import Augment
from vit_jax.train.recipe import DTYPES, LORA_TARGETS, SCHEDULES, TRAIN, Recipe

OVERRIDES: dict[str, dict[str, Any]] = {
    "model": {"help": "a named architecture (python -m weights_convert list)"},
    "epochs": {"type": positive_int},
    "image_size": {"type": image_size, "metavar": "N|HxW", "help": "pixels; the patch must divide it"},
    "batch_size": {"type": positive_int, "help": "images per step, over all devices"},
    "learning_rate": {"type": non_negative, "help": "the peak"},
    "schedule": {"choices": SCHEDULES},
    "warmup_epochs": {"type": non_negative, "help": "linear from 0, may be a fraction"},
    "beta1": {"type": fraction},
    "beta2": {"type": fraction},
    "eps": {"type": non_negative},
    "weight_decay": {"type": non_negative},
    "dropout": {"type": fraction, "help": "on branches and attention weights"},
    "seed": {"type": int},
}
MORE_OVERRIDES: dict[str, dict[str, Any]] = {
    "drop_path": {"type": fraction, "help": "share of images that pass the last block by"},
    "label_smoothing": {"type": fraction},
    "mixup": {"type": non_negative, "help": "alpha; 0.8 is common, 0 for none"},
    "cutmix": {"type": non_negative, "help": "alpha; 1 is common, 0 for none"},
    "train": {"choices": TRAIN, "help": "what learns: all, the head alone, or low-rank additions and the head"},
    "lora_rank": {"type": positive_int},
    "lora_alpha": {"type": non_negative},
    "lora_targets": {"choices": LORA_TARGETS, "help": "what of a block they add to"},
    "layer_decay": {"type": float, "help": "factor of the learning rate from layer to layer, 1 for none"},
    "clip_norm": {"type": non_negative, "help": "gradients are scaled to this norm at most, 0 for none"},
    "ema": {"type": fraction, "help": "decay of the parameters' moving average, which is then kept"},
    "accumulate": {"type": positive_int, "help": "parts that a batch goes through in, to save memory"},
    "dtype": {"choices": DTYPES, "help": "to compute in; parameters stay float32"},
    "patience": {"type": int, "help": "stop after so many epochs without a better one, 0 for never"},
}
AUGMENT_OVERRIDES: dict[str, dict[str, Any]] = {
    "crop_scale": {"type": float, "nargs": 2, "metavar": ("LEAST", "MOST"), "help": "share of the area"},
    "crop_ratio": {"type": float, "nargs": 2, "metavar": ("LEAST", "MOST"), "help": "width / height"},
    "degrees": {"type": non_negative, "help": "rotation, to either side"},
    "flip": {"type": non_negative, "help": "probability of a horizontal flip"},
    "brightness": {"type": non_negative},
    "contrast": {"type": non_negative},
    "saturation": {"type": non_negative},
    "hue": {"type": non_negative, "help": "in turns, at most 0.5"},
    "rand_ops": {"type": int, "help": "RandAugment: operations for each image, 2 is common, 0 for none"},
    "rand_magnitude": {"type": int, "help": "RandAugment: their strength, 0 to 30"},
}


def add_recipe_flags(parser: argparse.ArgumentParser) -> None:
    """Add a flag for every field of a recipe and of its augmentations."""
    group = parser.add_argument_group("recipe overrides")
    for name, options in OVERRIDES.items():
        group.add_argument("--" + name.replace("_", "-"), default=argparse.SUPPRESS, **options)
    group = parser.add_argument_group("beyond the plain recipe")
    for name, options in MORE_OVERRIDES.items():
        group.add_argument("--" + name.replace("_", "-"), default=argparse.SUPPRESS, **options)
    group = parser.add_argument_group("augmentation overrides")
    group.add_argument("--no-augment", action="store_true", help="start from none at all")
    for name, options in AUGMENT_OVERRIDES.items():
        group.add_argument("--" + name.replace("_", "-"), default=argparse.SUPPRESS, **options)


def override_recipe(recipe: Recipe, args: argparse.Namespace) -> Recipe:
    """The recipe with the flags that were given. Raises InputError as Recipe and Augment do, and for idle flags."""
    given = lists_to_tuples(vars(args))
    augment = Augment() if args.no_augment else recipe.augment
    augment = replace(augment, **{name: given[name] for name in AUGMENT_OVERRIDES if name in given})
    names = [*OVERRIDES, *MORE_OVERRIDES]
    made = replace(recipe, augment=augment, **{name: given[name] for name in names if name in given})
    idle = [name for name in ("lora_rank", "lora_alpha", "lora_targets") if name in given and made.train != "lora"]
    if idle:
        raise InputError(f"--{idle[0].replace('_', '-')} does nothing with --train {made.train}; give --train lora")
    return made


def changed_flags(recipe: Recipe, args: argparse.Namespace) -> list[str]:
    """The flags that were given and would change the recipe."""
    new, old = asdict(override_recipe(recipe, args)), asdict(recipe)
    changed = [f.name for f in fields(Recipe) if f.name != "augment" and new[f.name] != old[f.name]]
    changed += [name for name in AUGMENT_OVERRIDES if new["augment"][name] != old["augment"][name]]
    return ["--" + name.replace("_", "-") for name in changed]
