"""What a library's folder holds besides the weights, and the settings that the library cannot express."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from vit_jax import InputError, ViTConfig

Files = dict[str, dict[str, Any]]  # name of a JSON file -> its contents


@dataclass(frozen=True)
class FolderTarget:
    """A library that loads folders.

    title:     its name in messages.
    describe:  (config, class names) -> the JSON files next to the weights. Raises InputError for a config that the
               library cannot express.
    centre:    how its image processors halve an odd margin, one of vit_jax.preprocess.CENTRES.
    list_notes: config -> further lines to print about the library's model.
    """

    title: str
    describe: Callable[[ViTConfig, tuple[str, ...]], Files]
    centre: str
    list_notes: Callable[[ViTConfig], tuple[str, ...]] = lambda config: ()


def require(config: ViTConfig, fixed: Mapping[str, Any], owner: str) -> None:
    """Raise InputError, naming a field of the config, unless it has the values that a class always has.

    owner: the class, for the message.
    """
    for name, value in fixed.items():
        if getattr(config, name) != value:
            raise InputError(f"{owner} has {name} {value!r}, and this model {getattr(config, name)!r}")


def require_three_channels(config: ViTConfig, owner: str) -> None:
    """Raise InputError unless the model takes RGB pictures, the only ones that the library's pipelines prepare."""
    if config.in_channels != 3:
        raise InputError(f"{owner} prepares RGB pictures, and this model takes {config.in_channels} channels")


def find_ratio(hidden: int, width: int) -> float:
    """Return the ratio for which int(width * ratio) == hidden, as timm and TIPSv2 compute it."""
    ratio = hidden / width
    while int(width * ratio) < hidden:
        ratio = math.nextafter(ratio, math.inf)
    return ratio
