"""Frozen dataclasses of settings: the range, the choices and the help of each field, and strict reading from JSON.

    @dataclass(frozen=True)
    class Numbers:
        epochs: int = setting(10, "passes over the training images", interval="[1, inf)")

        def __post_init__(self) -> None:
            check_settings(self)

A subclass that repeats a field with another default inherits the rest of its description. Programs derive their flags
from the same descriptions (experiments/common/flags.py).
"""

import dataclasses
import math
import re
import types
from numbers import Integral, Real
from typing import Any, NamedTuple, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from vit_jax.errors import InputError

KEY = "setting"
TYPE_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", type(None): "null"}
INTERVAL = re.compile(r"([\[(])(\S+), (\S+)([\])])")
Settings = TypeVar("Settings")

# Fields that older files have under another name, by dataclass: {class: {old: new}}; None for a field that was removed.
RENAMED_FIELDS: dict[str, dict[str, str | None]] = {
    "CaptionRecipe": {"max_norm": "clip_norm"},
    "Preprocess": {"size": None},  # it was equal to the image_size of the model
}


@dataclasses.dataclass(frozen=True)
class Description:
    """What a field may hold and what it means.

    help:     what its flag does; for a boolean that is true by default the flag is --no-NAME.
    interval: the range of a number, or of each number of a tuple, as "[0, 1)".
    none:     what None stands for.
    const:    the value of a flag that is given without one; None if it needs a value.
    metavar:  the name of the value, or of each value, in help texts.
    extra:    whether the setting is an addition to the basic recipe; its default turns it off.
    paired:   whether a boolean has the flags --NAME and --no-NAME; otherwise it has only the one that changes it.
    only_with: (field, value): the setting has an effect only if that field has that value.
    aliases:  other flags of the field, without dashes, that users of other libraries expect.
    """

    help: str = ""
    interval: str | None = None
    choices: tuple[str, ...] = ()
    none: str = "none"
    const: Any = None
    metavar: str | tuple[str, ...] | None = None
    extra: bool = False
    paired: bool = False
    only_with: tuple[str, Any] | None = None
    aliases: tuple[str, ...] = ()


class Field(NamedTuple):
    """A field of a settings dataclass.

    item:   the type of its value, or of each item of a tuple.
    length: the length of a tuple, 0 for any length, or None for a single value.
    """

    name: str
    description: Description
    default: Any
    item: type
    length: int | None
    is_optional: bool

    def expectation(self) -> str:
        """Return what a value should be, as "a number in [0, 1)"."""
        if self.description.choices:
            return f"one of {', '.join(self.description.choices)}"
        noun = "a whole number" if self.item is int else "a number"
        if self.description.interval is None:
            return noun
        opening, low, high, _ = _parse_interval(self.description.interval)
        if high < float("inf"):
            return f"{noun} in {self.description.interval}"
        return f"{noun} {'of at least' if opening == '[' else 'above'} {low:g}"

    def allows(self, value: Any) -> bool:
        """Return whether a value, or an item of a tuple, has the right type and is in range."""
        if self.description.choices:
            return value in self.description.choices
        if self.item not in (int, float):
            return True
        if isinstance(value, bool) or not isinstance(value, Integral if self.item is int else Real):
            return False
        if self.description.interval is None:
            return self.item is int or math.isfinite(value)
        opening, low, high, closing = _parse_interval(self.description.interval)
        value = cast(float, value)  # an integer may be too large for a float
        is_above = low <= value if opening == "[" else low < value
        return is_above and (value <= high if closing == "]" else value < high)


def setting(default: Any = dataclasses.MISSING, help: str = "", **description: Any) -> Any:
    """Return a dataclass field with a Description. Takes the fields of Description as keywords."""
    return dataclasses.field(default=default, metadata={KEY: Description(help, **description)})


def _parse_interval(text: str) -> tuple[str, float, float, str]:
    match = INTERVAL.fullmatch(text)
    assert match is not None, text
    opening, low, high, closing = match.groups()
    return opening, float(low), float(high), closing


def fields_of(kind: Any) -> dict[str, Field]:
    """Return the described fields of a settings dataclass by name."""
    hints = get_type_hints(kind)
    described = {}
    for field in dataclasses.fields(kind):
        description = _inherited_description(kind, field.name)
        if description is not None:
            described[field.name] = Field(field.name, description, field.default, *_parse_hint(hints[field.name]))
    return described


def _inherited_description(kind: type, name: str) -> Description | None:
    for base in kind.__mro__:
        field = vars(base).get("__dataclass_fields__", {}).get(name)
        if field is not None and KEY in field.metadata:
            return field.metadata[KEY]
    return None


def _parse_hint(hint: Any) -> tuple[type, int | None, bool]:
    """Return the item type, the tuple length and whether None is allowed."""
    is_optional = False
    if get_origin(hint) in (Union, types.UnionType):
        (hint,) = (argument for argument in get_args(hint) if argument is not type(None))
        is_optional = True
    if get_origin(hint) is not tuple:
        return hint, None, is_optional
    items = get_args(hint)
    return items[0], 0 if items[-1] is Ellipsis else len(items), is_optional


def check_settings(settings: Any) -> None:
    """Raise InputError if a field of a settings dataclass is out of range; for use in __post_init__."""
    for field in fields_of(type(settings)).values():
        value = getattr(settings, field.name)
        if value is None and field.is_optional:
            continue
        items = (value,) if field.length is None else tuple(value)
        if field.length and len(items) != field.length:
            raise InputError(f"{field.name} has {field.length} values, not {len(items)}: {value!r}")
        if not all(field.allows(item) for item in items):
            each = "" if field.length is None else "each "
            raise InputError(f"{field.name} is {each}{field.expectation()}, not {value!r}")


def lists_to_tuples(stored: dict[str, Any]) -> dict[str, Any]:
    """Return a JSON object with tuples in place of its lists."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()}


def read_settings(kind: type[Settings], stored: Any, *, prefix: str = "") -> Settings:
    """Return the dataclass whose `dataclasses.asdict` was stored as JSON.

    Missing fields have their defaults. Nested dataclasses are read the same way. RENAMED_FIELDS translates old names.
    Raises InputError naming unknown fields, missing ones without a default, and values of another type.
    """
    if not isinstance(stored, dict):
        raise InputError(f"{prefix.rstrip('.') or 'the config'} is an object, not {stored!r:.60}")
    hints, renamed = get_type_hints(kind), RENAMED_FIELDS.get(kind.__name__, {})
    names = {name: renamed.get(name, name) for name in stored}
    values = {new: value for name, value in lists_to_tuples(stored).items() if (new := names[name]) is not None}
    known = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(prefix + name for name in set(values) - set(known))
    if unknown:
        raise InputError(f"unknown fields {', '.join(unknown)}; was the file written by a newer version?")
    missing = [
        prefix + name
        for name, field in known.items()
        if name not in values and field.default is field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise InputError(f"missing fields {', '.join(missing)}")
    for name, value in values.items():
        nested = next((kind for kind in (hints[name], *get_args(hints[name])) if dataclasses.is_dataclass(kind)), None)
        if nested is not None and isinstance(value, dict):
            values[name] = read_settings(cast(type, nested), value, prefix=f"{prefix}{name}.")
        elif not _has_type(value, hints[name]):
            raise InputError(f"{prefix}{name} is {_type_name(hints[name])}, not {value!r}")
    return kind(**values)


def _has_type(value: Any, hint: Any) -> bool:
    """Return whether a value of a JSON file, with tuples for its lists, has the type of a field."""
    if get_origin(hint) in (Union, types.UnionType):
        return any(_has_type(value, choice) for choice in get_args(hint))
    if get_origin(hint) is tuple:
        items = get_args(hint)
        items = items[:1] * len(value) if items[-1] is Ellipsis and isinstance(value, tuple) else items
        return isinstance(value, tuple) and len(value) == len(items) and all(map(_has_type, value, items))
    if hint is int:
        return isinstance(value, Integral) and not isinstance(value, bool)
    if hint is float:
        return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    return not isinstance(hint, type) or isinstance(value, hint)


def _type_name(hint: Any) -> str:
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(map(_type_name, get_args(hint)))
    if get_origin(hint) is tuple:
        items = get_args(hint)
        return f"a list of {'' if items[-1] is Ellipsis else f'{len(items)} x '}{_type_name(items[0])}"
    return TYPE_NAMES.get(hint, "an object")
