"""What a layout is: a family's table of rules, and how its arrays tell the architecture."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vit_jax import InputError
from vit_jax.checkpoint import to_arrays
from weights_convert.kinds import VIT, Kind
from weights_convert.rules import Rule, expand

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Layout:
    """A family of checkpoints.

    rules:        what any member of the family has; a member has those of its config's parameters.
    architecture: array shapes, image size if known -> the config's fields but num_heads, which arrays can't tell.
    marks:        names that every member's files have, by which the family is known.
    unused:       patterns of arrays that released files carry and the original image model does not use.
    spelling:     a file's name for an array -> the table's.
    exported_as:  the table's name, config -> the name that the original library loads.
    also_exported: config -> arrays that the original library wants and that hold nothing.
    kind:         what its checkpoints become.
    wrapper:      the key under which the original library's .pth files keep the arrays, if they have one.
    """

    name: str
    title: str
    rules: tuple[Rule, ...]
    architecture: Callable[[Shapes, tuple[int, int] | None], dict]
    marks: tuple[str, ...]
    unused: tuple[str, ...] = ()
    spelling: Callable[[str], str] = lambda name: name
    exported_as: Callable[[str, Any], str] = lambda name, config: name
    also_exported: Callable[[Any], Mapping[str, np.ndarray]] = lambda config: {}
    kind: Kind = VIT
    wrapper: str = ""

    @property
    def family(self) -> str:
        """Whose config files go with it: "hf", or its own name."""
        return self.name.partition("_")[0]

    def rules_for(self, config: Any) -> list[Rule]:
        """The rules of one member: one for each of its parameters.

        Raises InputError when there is none for one, and for a config of another kind of model.
        """
        if not isinstance(config, self.kind.config):
            raise InputError(f"the layout {self.name} is one of {self.kind.title}s, and this model is none")
        targets = to_arrays(self.kind.abstract(config))
        having = (rule for rule in expand(self.rules, targets) if rule.when(config))
        rules = [rule.settled(config) for rule in having]
        without = sorted(set(targets) - {rule.target for rule in rules})
        if without:
            raise InputError(f"the layout {self.name} has no place for {', '.join(without[:5])}")
        return rules


def count_layers(shapes: Shapes, prefix: str) -> int:
    """How many layers' arrays there are under a prefix with {i}: one more than the highest number."""
    head = prefix.partition("{i}")[0]
    numbers = {name.removeprefix(head).split(".")[0] for name in shapes if name.startswith(head)}
    return 1 + max((int(number) for number in numbers if number.isdigit() and len(number) < 5), default=-1)


def grid_of(tokens: int, patch: tuple[int, int], image_size: tuple[int, int] | None) -> tuple[int, int]:
    """The (rows, columns) of a position table: square where it can be, else the grid of the image size given.

    Raises InputError when it is neither.
    """
    side = math.isqrt(max(tokens, 0))
    if side > 0 and side * side == tokens:
        return side, side
    if image_size is not None:
        rows, columns = image_size[0] // patch[0], image_size[1] // patch[1]
        if rows * columns == tokens:
            return rows, columns
    raise InputError(f"{tokens} positions are no square grid; give the image size that the model was trained at")


def positions_of(
    count: int, prefix: int, patch: tuple[int, int], image_size: tuple[int, int] | None
) -> tuple[tuple[int, int], bool]:
    """A position table's (rows, columns), and whether it has entries for the prefix tokens beside the grid's.

    Raises InputError when neither way leaves a square grid or that of the image size given.
    """
    try:
        return grid_of(count - prefix, patch, image_size), prefix > 0
    except InputError:
        return grid_of(count, patch, image_size), False
