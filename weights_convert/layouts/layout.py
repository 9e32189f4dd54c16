"""The definition of a layout: a family's table of rules, and how to infer the architecture from its array shapes."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vit_jax import InputError
from vit_jax.checkpoint import to_arrays
from weights_convert.model_types import IMAGE_MODEL, ModelType
from weights_convert.rules import ResolvedRule, Rule, expand_layers

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Layout:
    """A family of checkpoints.

    rules:              the rules of every variant; a checkpoint needs those whose parameters its config has.
    infer_architecture: (array shapes, image size or None) -> config fields, usually all but num_heads.
                        Raises KeyError if an array is missing.
    signature_keys:     array names that every file of the family has; they identify the family.
    unused:             regular expressions of arrays that released files hold and the original model does not use.
    rename_key:         array name in a file -> name in the rules.
    export_key:         (name in the rules, config) -> name that the original library loads.
    export_extra:       config -> arrays that the original library expects and that hold no information.
    model_type:         the type of model that the checkpoints become.
    wrapper:            the key under which the original's .pth files nest the arrays; "" for none.
    """

    name: str
    title: str
    rules: tuple[Rule, ...]
    infer_architecture: Callable[[Shapes, tuple[int, int] | None], dict]
    signature_keys: tuple[str, ...]
    unused: tuple[str, ...] = ()
    rename_key: Callable[[str], str] = lambda name: name
    export_key: Callable[[str, Any], str] = lambda name, config: name
    export_extra: Callable[[Any], Mapping[str, np.ndarray]] = lambda config: {}
    model_type: ModelType = IMAGE_MODEL
    wrapper: str = ""

    @property
    def sidecar_family(self) -> str:
        """The family of sidecar configs that apply: "hf", or the layout's own name up to an underscore."""
        return self.name.partition("_")[0]

    def resolve_rules(self, config: Any) -> list[ResolvedRule]:
        """Return one rule for each parameter of a config.

        Raises InputError if a parameter has no rule, and for a config of another model type.
        """
        if not isinstance(config, self.model_type.config_class):
            raise InputError(f"the layout {self.name} is for {self.model_type.title}s, and this model is not one")
        targets = to_arrays(self.model_type.abstract_model(config))
        rules = [rule.resolve(config) for rule in expand_layers(self.rules, targets) if rule.when(config)]
        uncovered = sorted(set(targets) - {rule.target for rule in rules})
        if uncovered:
            raise InputError(f"the layout {self.name} has no place for {', '.join(uncovered[:5])}")
        return rules


def count_layers(shapes: Shapes, prefix: str) -> int:
    """Return the number of layers under a prefix with {i}: one more than the highest layer number."""
    head = prefix.partition("{i}")[0]
    numbers = {name.removeprefix(head).split(".")[0] for name in shapes if name.startswith(head)}
    return 1 + max((int(number) for number in numbers if number.isdigit() and len(number) < 5), default=-1)


def infer_grid(num_positions: int, patch: tuple[int, int], image_size: tuple[int, int] | None) -> tuple[int, int]:
    """Return the (rows, columns) of a position table: a square if possible, else the grid of the image size.

    Raises InputError if neither has that many positions.
    """
    side = math.isqrt(max(num_positions, 0))
    if side > 0 and side * side == num_positions:
        return side, side
    if image_size is not None:
        rows, columns = image_size[0] // patch[0], image_size[1] // patch[1]
        if rows * columns == num_positions:
            return rows, columns
    raise InputError(f"{num_positions} positions are no square grid; give the image size that the model was trained at")


def infer_positions(
    num_positions: int, num_prefix: int, patch: tuple[int, int], image_size: tuple[int, int] | None
) -> tuple[tuple[int, int], bool]:
    """Return a position table's (rows, columns), and whether it has entries for the prefix tokens too.

    Raises InputError if neither reading fits a square grid or the grid of the image size.
    """
    try:
        return infer_grid(num_positions - num_prefix, patch, image_size), num_prefix > 0
    except InputError:
        return infer_grid(num_positions, patch, image_size), False
