"""What a layout is: a family's table of rules, and how its arrays tell the architecture."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from vit_jax.errors import InputError
from weights_convert.rules import Rule

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Layout:
    """A family of checkpoints.

    architecture: array shapes, image size if known -> ViTConfig's fields but num_heads, which arrays can't tell.
    unused:       arrays that released files carry and the original model does not use.
    """

    name: str
    title: str
    rules: tuple[Rule, ...]
    architecture: Callable[[Shapes, tuple[int, int] | None], dict]
    unused: tuple[str, ...] = ()


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
