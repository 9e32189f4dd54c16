"""The flags that state what a checkpoint's arrays cannot hold, for convert, inspect and verify."""

import argparse
from collections.abc import Mapping
from typing import Any, TypedDict

from vit_jax.cli import number, positive_int
from vit_jax.config import CHOICES
from vit_jax.numerals import parse_float
from vit_jax.preprocess import KERNELS
from vit_jax.settings import lists_to_tuples

SETTINGS = ("num_heads", "activation", "norm_position", "pooling")
PREPROCESS = {"mean": "mean", "std": "std", "interpolation": "kernel", "crop": "crop"}


def add_settings_flags(parser: argparse.ArgumentParser) -> None:
    """Add a flag for every setting that arrays cannot hold. Flags that are not given leave no attribute."""
    group = parser.add_argument_group(
        "what arrays do not show", "default: from the config next to the file, else the layout's; printed"
    )

    def add(flag: str, **options: Any) -> None:
        group.add_argument(flag, default=argparse.SUPPRESS, **options)

    add("--num-heads", type=positive_int, help="attention heads; needed for an unpublished shape without a config")
    add("--activation", choices=CHOICES["activation"], help="of the MLP")
    add("--norm-position", choices=CHOICES.get("norm_position"), help="norms before (pre) or after (post) each branch")
    add("--pooling", choices=CHOICES["pooling"], help="what the head reads")
    add("--mean", type=number, nargs="+", metavar="X", help="of each channel, in [0, 1]")
    add("--std", type=number, nargs="+", metavar="X", help="of each channel, in [0, 1]")
    add("--interpolation", choices=tuple(KERNELS), help="kernel that resizes pictures")
    add("--crop", type=crop, help="fraction of the resized picture to keep, or none: resize without cropping")


def crop(text: str) -> float | None:
    """Parse a fraction in (0, 1], or none."""
    if text == "none":
        return None
    value = parse_float(text)
    if value is None or not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number in (0, 1], nor none")
    return value


class SettingsOptions(TypedDict):
    """The part of ConvertOptions that the flags fill."""

    settings: Mapping[str, Any]
    preprocess: Mapping[str, Any]


def read_settings_flags(args: argparse.Namespace) -> SettingsOptions:
    """Return the flags that were given."""
    given = vars(args)
    return {
        "settings": {name: given[name] for name in SETTINGS if name in given},
        "preprocess": lists_to_tuples({field: given[flag] for flag, field in PREPROCESS.items() if flag in given}),
    }
