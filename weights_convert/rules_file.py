"""A layout for your own array names: a small TOML file that maps them to the names of a known layout.

    like = "timm"                       # the known layout
    unused = ["ema_.*"]                 # regular expressions: arrays to ignore
    [names]                             # your name = its name
    "encoder.{i}.attention.{*}" = "blocks.{i}.attn.{*}"
    "stem.{*}" = "patch_embed.proj.{*}"
    [settings]                          # fields of ViTConfig that arrays cannot hold
    num_heads = 6
    [preprocess]                        # fields of Preprocess
    mean = [0.485, 0.456, 0.406]
    [classes]
    names = ["cat", "dog"]
    [arrays]                            # your name = how it is stored, if not as in the known layout
    "stem.weight" = "linear_hwc"

{i} stands for a number, {*} for anything. A name that matches no line stays as it is. Export applies the lines in
reverse, so both sides of a line need the same placeholders. {h}, on your side alone, joins one array for each head, in
order, along the first axis. [arrays]: see weights_convert.stored_forms.FORMS. Rules with {h} or [arrays] only read.
"""

import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from vit_jax import InputError, Preprocess, ViTConfig
from vit_jax.settings import lists_to_tuples
from weights_convert.formats import LazyArray
from weights_convert.layouts import LAYOUTS, Layout
from weights_convert.stored_forms import FORMS, join_heads

KEYS = ("like", "unused", "names", "settings", "preprocess", "classes", "arrays")
PLACEHOLDERS = {"{i}": r"(\d+)", "{*}": r"(.+)", "{h}": r"(\d+)"}
HEAD = "{h}"
PREFIX = r"((?:.*\.)?)"  # of a model within a file

Arrays = Mapping[str, LazyArray]


def read_rules(path: str | os.PathLike) -> Layout:
    """Read a rules file as a layout. Raises InputError naming the file and the line that is wrong."""
    try:
        stored = tomllib.loads(Path(path).read_text())
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such rules file") from error
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: not a rules file in TOML ({error})") from error
    try:
        return _build_layout(stored)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _build_layout(stored: dict[str, Any]) -> Layout:
    if unknown := sorted(set(stored) - set(KEYS)):
        raise InputError(f"unknown {', '.join(unknown)}: one of {', '.join(KEYS)}")
    like = stored.get("like")
    if like not in LAYOUTS:
        raise InputError(f"like is {like!r}: one of {', '.join(LAYOUTS)}")
    base = LAYOUTS[like]
    names, settings, forms = stored.get("names", {}), stored.get("settings", {}), stored.get("arrays", {})
    _check_names(names)
    _check_fields("settings", settings, ViTConfig())
    _check_fields("preprocess", stored.get("preprocess", {}), Preprocess(crop=1.0))
    _check_unused(stored.get("unused", []))
    _check_forms(forms)
    heads = {own: its for own, its in names.items() if HEAD in own}
    to_base = [_make_renamer(own, its) for own, its in names.items() if own not in heads]
    from_base = [_make_renamer(its, own) for own, its in names.items() if own not in heads]

    def export_key(name: str, config: Any) -> str:
        if heads or forms:
            raise InputError("rules with {h} or [arrays] only read checkpoints; export to a layout by its name")
        return _rename(from_base, base.export_key(name, config))

    return replace(
        base,
        name="own",
        title=f"{base.title}, under your own names",
        unused=(*base.unused, *stored.get("unused", [])),
        rename_key=lambda name: base.rename_key(_rename(to_base, name)),
        export_key=export_key,
        prepare=lambda arrays: _join_all(heads, _reshape_all(forms, settings, arrays)),
        settings=lists_to_tuples(settings),
        preprocess_settings=lists_to_tuples(stored.get("preprocess", {})),
        class_names=_parse_classes(stored.get("classes", {})),
    )


def _check_names(names: Any) -> None:
    if not isinstance(names, dict) or not all(isinstance(its, str) for its in names.values()):
        raise InputError('[names] needs lines of the form "your name" = "its name"')
    for own, its in names.items():
        placeholders, others = sorted(_find_placeholders(own)), sorted(_find_placeholders(its))
        if HEAD in placeholders:
            placeholders.remove(HEAD)
        if placeholders != others or len(set(placeholders)) < len(placeholders) or HEAD in others:
            raise InputError(
                f'"{own}" = "{its}" needs each of {{i}} and {{*}} once on both sides, or on neither, and {{h}} at most '
                "once, on your side"
            )


def _check_fields(table: str, values: Any, defaults: Any) -> None:
    """Raise InputError unless a table holds fields of a dataclass, of the type of its defaults."""
    if not isinstance(values, dict):
        raise InputError(f"{table} must be a table")
    types = {
        field.name: type(getattr(defaults, field.name))
        for field in fields(defaults)
        if not is_dataclass(getattr(defaults, field.name))
    }
    if unknown := sorted(set(values) - set(types)):
        raise InputError(f"[{table}] takes fields of {type(defaults).__name__}, not {', '.join(unknown)}")
    for name, value in values.items():
        if type(lists_to_tuples({name: value})[name]) is not types[name]:
            raise InputError(f"[{table}] {name} = {value!r} must be of type {types[name].__name__}")


def _check_unused(unused: Any) -> None:
    if not isinstance(unused, list):
        raise InputError("unused must be a list of regular expressions")
    try:
        for pattern in unused:
            re.compile(pattern)
    except (re.error, TypeError) as error:
        raise InputError(f"unused must be a list of regular expressions ({error})") from error


def _check_forms(forms: Any) -> None:
    if not isinstance(forms, dict) or not all(form in FORMS for form in forms.values()):
        raise InputError(f'[arrays] needs lines of the form "your name" = one of {", ".join(FORMS)}')


def _parse_classes(table: Any) -> tuple[str, ...]:
    names = table.get("names", []) if isinstance(table, dict) and set(table) <= {"names"} else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError('[classes] takes names = ["first", "second", ...], in the order of the outputs')
    return tuple(names)


def _find_placeholders(name: str) -> list[str]:
    return re.findall(r"\{[i*h]\}", name)


def _compile(pattern: str, *, prefix: str = "") -> re.Pattern:
    """Return the regular expression of a name with placeholders, each a group."""
    pieces = [PLACEHOLDERS.get(piece, re.escape(piece)) for piece in re.split(r"(\{[i*h]\})", pattern)]
    return re.compile(prefix + "".join(pieces))


def _fill(template: str, values: Mapping[str, str]) -> str:
    return re.sub(r"\{[i*]\}", lambda placeholder: values[placeholder[0]], template)


def _make_renamer(pattern: str, template: str) -> Callable[[str], str | None]:
    """Return a function that rewrites names that match the pattern, and returns None for others."""
    order, compiled = _find_placeholders(pattern), _compile(pattern)

    def rename(name: str) -> str | None:
        match = compiled.fullmatch(name)
        return None if match is None else _fill(template, dict(zip(order, match.groups(), strict=True)))

    return rename


def _rename(renamers: list[Callable[[str], str | None]], name: str) -> str:
    """Return the name rewritten by the first renamer that matches; unchanged if none does."""
    candidates = (rename(name) for rename in renamers)
    return next((new for new in candidates if new is not None), name)


def _reshape_all(forms: Mapping[str, str], settings: Mapping[str, Any], arrays: Arrays) -> dict[str, LazyArray]:
    """Return the arrays with those that [arrays] lists in the form of the known layout."""
    patterns = [(_compile(pattern, prefix=PREFIX), FORMS[form]) for pattern, form in forms.items()]
    for pattern, _ in patterns:
        if not any(pattern.fullmatch(name) for name in arrays):
            raise InputError(f"[arrays] lists {pattern.pattern.removeprefix(PREFIX)}, which the file does not have")
    return {
        name: next((form(name, array, settings) for pattern, form in patterns if pattern.fullmatch(name)), array)
        for name, array in arrays.items()
    }


def _join_all(heads: Mapping[str, str], arrays: Arrays) -> dict[str, LazyArray]:
    """Return the arrays with those of single heads joined, under the known layout's names."""
    others = dict(arrays)
    groups: dict[str, dict[int, LazyArray]] = {}
    for own, its in heads.items():
        pattern, order = _compile(own, prefix=PREFIX), ["prefix", *_find_placeholders(own)]
        for name in arrays:
            if match := pattern.fullmatch(name):
                values = dict(zip(order, match.groups(), strict=True))
                target = values["prefix"] + _fill(its, values)
                groups.setdefault(target, {})[int(values[HEAD])] = others.pop(name)
    return others | {name: join_heads(name, parts) for name, parts in groups.items()}
