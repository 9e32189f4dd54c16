"""The classes of a model, by name or number."""

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from vit_jax.data.unicode_names import compose_name
from vit_jax.errors import InputError
from vit_jax.numerals import parse_int
from vit_jax.suggest import find_similar


def name_class(label: int, class_names: Sequence[str]) -> str:
    """Return a class's name, or "class 3" for a model without class names."""
    return class_names[label] if class_names else f"class {label}"


def find_class(target: Any, class_names: Sequence[str], num_classes: int) -> int:
    """Return the index of a class, given by its name, or else by its number (an int, or an integer of NumPy or jax).

    Names are equal if they look alike (NFC); without class names they are those of name_class.
    Raises InputError for a class that the model lacks, with similar names, and for a name that several classes have.
    """
    known = class_names or [name_class(label, ()) for label in range(num_classes)]
    names, name = [compose_name(each) for each in known], compose_name(str(target))
    labels = [label for label, each in enumerate(names) if each == name]
    if isinstance(target, str) and len(labels) > 1:
        raise InputError(f"class {target}: the classes {', '.join(map(str, labels))} have this name; give a number")
    if isinstance(target, str) and labels:
        return labels[0]
    number = _as_number(target)
    if number is not None and 0 <= number < num_classes:
        return number
    close = find_similar(name, names) if class_names else []
    suggestion = f"did you mean {' or '.join(close)}? Its " if close else ""
    by_name = f", or by name: {', '.join(class_names[:8])} ..." if class_names else ""
    raise InputError(f"no class {target!r}: {suggestion}classes are 0 to {num_classes - 1}{by_name}")


def _as_number(target: Any) -> int | None:
    """Return the number that a text or an integer of any type stands for, None for anything else."""
    if isinstance(target, str):
        return parse_int(target)
    if isinstance(target, bool | np.bool_) or np.ndim(target):
        return None
    try:
        return operator.index(target)
    except TypeError:
        return None
