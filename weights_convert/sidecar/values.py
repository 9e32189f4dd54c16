"""Values in sidecar files: sizes, channels, class names and choices. Malformed ones raise ValueError or InputError."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from vit_jax import InputError
from vit_jax.numerals import parse_float, parse_int

Value = TypeVar("Value")


def choose(choices: Mapping[Any, Value], value: Any, name: str) -> Value:
    """Return choices[value]. Raises InputError naming the field for an unknown value."""
    if isinstance(value, (str, int)) and value in choices:
        return choices[value]
    raise InputError(f"unknown {name} {value!r}: one of {', '.join(map(str, choices))}")


def reject_unknown(stored: Iterable[str], known: Iterable[str], where: str) -> None:
    """Raise InputError naming the fields that are not known: their effect on the output is not either."""
    unknown = sorted(set(stored) - set(known))
    if unknown:
        raise InputError(f"{where} has {', '.join(unknown)}, whose effect is not known")


def reject_unsupported(stored: Mapping[str, Any], names: Iterable[str]) -> None:
    """Raise InputError naming the fields that are on but not supported."""
    on = [name for name in names if stored.get(name)]
    if on:
        raise InputError(f"not supported: {', '.join(f'{name} = {stored[name]!r}' for name in on)}")


def drop_nulls(stored: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the fields that are not null: null means the default everywhere."""
    return {name: value for name, value in (stored or {}).items() if value is not None}


def parse_pair(value: Any) -> tuple[int, int]:
    """Return a number, [height, width] or {"height": ..., "width": ...} as (height, width)."""
    if isinstance(value, Mapping):
        value = [value["height"], value["width"]]
    height, width = (value, value) if isinstance(value, int) else value
    if int(height) != height or int(width) != width or min(height, width) < 1:
        raise ValueError(f"{value!r} is no size in pixels")
    return int(height), int(width)


def parse_number(value: Any, name: str) -> float:
    """Return a finite number. Some files have numbers as text."""
    number = parse_float(value) if isinstance(value, str) else value
    if isinstance(number, bool) or not isinstance(number, (int, float)) or not math.isfinite(number):
        raise InputError(f"{name} is a number, not {value!r}")
    return float(number)


def parse_count(value: Any, name: str) -> int:
    """Return a whole number above 0."""
    number = parse_number(value, name)
    if number < 1 or number != int(number):
        raise InputError(f"{name} is a whole number above 0, not {value!r}")
    return int(number)


def parse_positive(value: Any, name: str) -> float:
    """Return a number above 0."""
    number = parse_number(value, name)
    if number <= 0:
        raise InputError(f"{name} is above 0, not {value!r}")
    return number


def parse_channels(value: Any, channels: int, name: str) -> tuple[float, ...]:
    """Return a number, or one number per channel, as one number per channel."""
    values = tuple(parse_number(item, name) for item in (value if isinstance(value, (list, tuple)) else [value]))
    values = values * channels if len(values) == 1 else values
    if len(values) != channels:
        raise InputError(f"{name} {value!r} is not one number per channel, of {channels} channels")
    return values


def parse_class_names(labels: Any) -> tuple[str, ...]:
    """Return class names listed in order, or by number as in {"0": name}. Raises InputError for numbers with gaps."""
    if not isinstance(labels, Mapping):
        return tuple(str(name) for name in labels or ())
    by_number = {parse_int(str(number)): str(name) for number, name in labels.items()}
    if missing := sorted(set(range(len(labels))) - set(by_number)):
        raise InputError(f"the class numbers are not 0 to {len(labels) - 1}: {missing[:3]} have no name")
    return tuple(by_number[number] for number in range(len(labels)))


def find_crop(resized: tuple[int, int], cropped: tuple[int, int]) -> float:
    """Return the fraction for which Preprocess resizes to `resized` before it takes the central `cropped`.

    That is floor(cropped / fraction) == resized, per side. Raises InputError if there is no such fraction.
    """
    fraction = min(1.0, *(part / side for part, side in zip(cropped, resized, strict=True)))
    while any(math.floor(part / fraction) < side for part, side in zip(cropped, resized, strict=True)):
        fraction = math.nextafter(fraction, 0)
    if tuple(math.floor(part / fraction) for part in cropped) != resized:
        text = " of ".join(f"{height}x{width}" for height, width in (cropped, resized))
        raise InputError(f"a central crop of {text} pixels is not supported: it is not the same fraction of both sides")
    return fraction
