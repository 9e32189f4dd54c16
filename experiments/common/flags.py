"""Command-line flags derived from dataclasses of settings: see vit_jax/settings.py.

Each described field has a flag of its name.
"""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from functools import partial
from typing import Any, TypeVar

from vit_jax import InputError
from vit_jax.cli import image_size, positive_int
from vit_jax.numerals import parse_float, parse_int
from vit_jax.settings import RENAMED_FIELDS, Field, fields_of
from vit_jax.train.recipe import TrainRecipe

Settings = TypeVar("Settings")
AnyRecipe = TypeVar("AnyRecipe", bound=TrainRecipe)

ABSENT = object()

VALUES: dict[type, Callable[[str], Any]] = {int: parse_int, float: parse_float}
# Fields whose text is more than one number or name.
PARSERS: dict[str, Callable[[str], Any]] = {"image_size": image_size}


def flag(name: str) -> str:
    """Return the flag of a field."""
    return "--" + name.replace("_", "-")


def add_flags(
    parser: argparse._ActionsContainer,
    kind: type,
    title: str | None = None,
    *,
    defaults: Mapping[str, Any] | None = None,
    suppress: bool = False,
) -> None:
    """Add a flag for every described field of a dataclass, in a group of that title or to `parser` itself.

    defaults: instances of the dataclass by name, whose values the help lists in place of the field's own default.
    suppress: leave flags that are not given out of the parsed arguments, so that `given_settings` tells them apart.
    """
    groups = {extra: title and parser.add_argument_group(title + extra) for extra in _titles(kind)}
    for field in fields_of(kind).values():
        group = groups[_title(field)] or parser
        default = argparse.SUPPRESS if suppress and not _is_switch(field) else field.default
        group.add_argument(*_names(field, kind), dest=field.name, default=default, **_options(field, defaults))


def add_batch_size_flag(parser: argparse._ActionsContainer, default: int, help: str | None = None) -> None:
    """Add --batch-size, with the aliases that it has in training."""
    field = fields_of(TrainRecipe)["batch_size"]
    parser.add_argument(*_names(field, TrainRecipe), type=positive_int, default=default, help=help)


def _title(field: Field) -> str:
    return ", beyond the basics" if field.description.extra else ""


def _titles(kind: type) -> list[str]:
    return sorted({_title(field) for field in fields_of(kind).values()})


def _names(field: Field, kind: type) -> list[str]:
    """Return the flags of a field: that of its name, its aliases, and those of its names in older versions."""
    if _is_switch(field) and field.default:
        return [flag(f"no_{field.name}")]
    renamed = RENAMED_FIELDS.get(kind.__name__, {})
    old_names = [old for old, new in renamed.items() if new == field.name]
    return [flag(name) for name in (field.name, *field.description.aliases, *old_names)]


def _is_switch(field: Field) -> bool:
    """Return whether a field has one flag without a value, which changes its default."""
    return field.item is bool and not field.description.paired


def _options(field: Field, defaults: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return argparse's options for a field."""
    help = f"{field.description.help} (default: {_default_text(field, defaults)})"
    if _is_switch(field):
        return {"action": "store_false" if field.default else "store_true", "help": field.description.help}
    if field.item is bool:
        return {"action": argparse.BooleanOptionalAction, "help": help}
    options: dict[str, Any] = {"help": help, "metavar": field.description.metavar}
    if field.description.choices:
        return options | {"choices": field.description.choices}
    if field.name in PARSERS:
        return options | {"type": PARSERS[field.name]}
    if field.description.const is not None:
        options |= {"nargs": "?", "const": field.description.const}
    elif field.length is not None:
        options |= {"nargs": field.length or "+"}
    return options | {"type": partial(_parse_value, field)}


def _parse_value(field: Field, text: str) -> Any:
    if not text:  # see vit_jax.cli.Parser
        raise argparse.ArgumentTypeError("the value is empty")
    value = VALUES[field.item](text) if field.item in VALUES else text
    if value is None or not field.allows(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not {field.expectation()}")
    return value


def _default_text(field: Field, defaults: Mapping[str, Any] | None) -> str:
    if not defaults:
        return _value_text(field, field.default)
    values = {name: _value_text(field, getattr(settings, field.name)) for name, settings in defaults.items()}
    if len(set(values.values())) == 1:
        return next(iter(values.values()))
    return "the recipe's: " + ", ".join(f"{value} in {name}" for name, value in values.items())


def _value_text(field: Field, value: Any) -> str:
    if value is None:
        return field.description.none
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ("x" if field.name == "image_size" else " ").join(_value_text(field, item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def given_settings(args: argparse.Namespace, kind: type) -> dict[str, Any]:
    """Return the fields of a dataclass whose flags are given, by name, for flags added with `suppress`."""
    values = {}
    for name, field in fields_of(kind).items():
        value = vars(args).get(name, ABSENT)
        if value is not ABSENT and not (_is_switch(field) and value == field.default):
            values[name] = tuple(value) if isinstance(value, list) else value
    return values


def read_flags(args: argparse.Namespace, kind: type[Settings]) -> Settings:
    """Return a dataclass from its flags, for flags added without `suppress`."""
    return kind(**{name: vars(args)[name] for name in fields_of(kind)})


def add_recipe_flags(parser: argparse.ArgumentParser, recipes: Mapping[str, TrainRecipe]) -> None:
    """Add --no-augment and a flag for every field of a recipe and of its augmentations."""
    kind = type(next(iter(recipes.values())))
    add_flags(parser, kind, "recipe", defaults=recipes, suppress=True)
    augments: dict[str, Any] = {name: _augment_of(recipe) for name, recipe in recipes.items()}
    group = parser.add_argument_group("augmentation of the training images")
    group.add_argument("--no-augment", action="store_true", help="start without any, in place of the recipe's")
    add_flags(group, type(next(iter(augments.values()))), defaults=augments, suppress=True)


def _augment_of(recipe: Any) -> Any:
    return recipe.augment


def override_recipe(recipe: AnyRecipe, args: argparse.Namespace, no_augment: Any) -> AnyRecipe:
    """Return the recipe with the values of the flags that are given.

    no_augment: the augmentations that --no-augment starts from. Raises InputError for a value out of range, and for a
    flag that has no effect.
    """
    augment = no_augment if args.no_augment else _augment_of(recipe)
    augment = replace(augment, **given_settings(args, type(augment)))
    given = given_settings(args, type(recipe))
    overridden = replace(recipe, augment=augment, **given)  # type: ignore[call-arg]  # every recipe has it
    for name in given:
        condition = fields_of(type(recipe))[name].description.only_with
        if condition is not None and (value := getattr(overridden, condition[0])) != condition[1]:
            switch = flag(condition[0])
            raise InputError(f"{flag(name)} has no effect with {switch} {value}; give {switch} {condition[1]}")
    return overridden


def changed_flags(before: Any, after: Any) -> list[str]:
    """Return the flags of the fields in which two dataclasses of one type differ, those of nested ones included."""
    changed = []
    for field in fields(before):
        old, new = getattr(before, field.name), getattr(after, field.name)
        if old != new:
            changed += changed_flags(old, new) if is_dataclass(old) else [flag(field.name)]
    return changed
