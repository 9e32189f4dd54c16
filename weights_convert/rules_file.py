"""A layout of one's own: a small TOML file that says under which names a known layout's arrays lie.

    like = "timm"                       # the layout whose arrays these are
    unused = ["ema_.*"]                 # patterns of arrays to leave out
    [names]                             # mine = its
    "encoder.{i}.attention.{*}" = "blocks.{i}.attn.{*}"
    "stem.{*}" = "patch_embed.proj.{*}"
    [settings]                          # fields of ViTConfig that arrays can't tell
    num_heads = 6

{i} stands for a number, {*} for anything. A name that no line fits is taken as it is. The lines are read backwards for
the way out, so each must have the same placeholders on both sides.
"""

import os
import re
import tomllib
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from vit_jax import InputError, ViTConfig
from vit_jax.checkpoint import lists_to_tuples
from weights_convert.layouts import LAYOUTS
from weights_convert.layouts.layout import Layout

KEYS = ("like", "unused", "names", "settings")
PLACEHOLDERS = {"{i}": r"(\d+)", "{*}": r"(.+)"}


def read_rules(path: str | os.PathLike) -> Layout:
    """The layout that a rule file describes. Raises InputError naming the file and the line that is wrong."""
    try:
        stored = tomllib.loads(Path(path).read_text())
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such rule file") from error
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: not a rule file in TOML ({error})") from error
    try:
        return _layout(stored)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _layout(stored: dict[str, Any]) -> Layout:
    if unknown := sorted(set(stored) - set(KEYS)):
        raise InputError(f"unknown {', '.join(unknown)}: one of {', '.join(KEYS)}")
    like = stored.get("like")
    if like not in LAYOUTS:
        raise InputError(f"like is {like!r}: one of {', '.join(LAYOUTS)}")
    base = LAYOUTS[like]
    names, settings, unused = stored.get("names", {}), stored.get("settings", {}), stored.get("unused", [])
    _check(names, settings, unused)
    inward = [_renaming(mine, its) for mine, its in names.items()]
    outward = [_renaming(its, mine) for mine, its in names.items()]
    return replace(
        base,
        name="own",
        title=f"{base.title}, under names of one's own",
        architecture=lambda shapes, size: base.architecture(shapes, size) | settings,
        unused=(*base.unused, *unused),
        spelling=lambda name: base.spelling(_first(inward, name)),
        exported_as=lambda name, config: _first(outward, base.exported_as(name, config)),
    )


def _check(names: Any, settings: Any, unused: Any) -> None:
    if not isinstance(names, dict) or not all(isinstance(its, str) for its in names.values()):
        raise InputError('[names] has lines of the form "mine" = "its"')
    for mine, its in names.items():
        here, there = sorted(_placeholders(mine)), sorted(_placeholders(its))
        if here != there or len(set(here)) < len(here):
            raise InputError(f'"{mine}" = "{its}" needs each of {{i}} and {{*}} once on both sides, or on neither')
    known = {field.name: type(field.default) for field in fields(ViTConfig) if field.default is not None}
    if not isinstance(settings, dict) or not isinstance(unused, list):
        raise InputError("settings is a table, unused a list of regular expressions")
    if wrong := sorted(set(settings) - set(known)):
        raise InputError(f"[settings] has fields of ViTConfig, not {', '.join(wrong)}")
    for name, value in settings.items():
        if type(lists_to_tuples({name: value})[name]) is not known[name]:
            raise InputError(f"[settings] {name} = {value!r} is no {known[name].__name__}")
    try:
        for pattern in unused:
            re.compile(pattern)
    except (re.error, TypeError) as error:
        raise InputError(f"unused is a list of regular expressions ({error})") from error


def _placeholders(name: str) -> list[str]:
    return re.findall(r"\{[i*]\}", name)


def _renaming(pattern: str, template: str) -> Callable[[str], str | None]:
    """A function that rewrites the names that fit the pattern, and answers None for others."""
    order = _placeholders(pattern)
    pieces = [PLACEHOLDERS.get(piece, re.escape(piece)) for piece in re.split(r"(\{[i*]\})", pattern)]
    compiled = re.compile("".join(pieces))

    def rename(name: str) -> str | None:
        found = compiled.fullmatch(name)
        if found is None:
            return None
        values = dict(zip(order, found.groups(), strict=True))
        return re.sub(r"\{[i*]\}", lambda placeholder: values[placeholder[0]], template)

    return rename


def _first(renamings: list[Callable[[str], str | None]], name: str) -> str:
    renamed = (rename(name) for rename in renamings)
    return next((new for new in renamed if new is not None), name)
