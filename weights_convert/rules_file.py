"""A layout for your own array names: a small TOML file that maps them to the names of a known layout.

    like = "timm"                       # the known layout
    unused = ["ema_.*"]                 # regular expressions: arrays to ignore
    [names]                             # your name = its name
    "encoder.{i}.attention.{*}" = "blocks.{i}.attn.{*}"
    "stem.{*}" = "patch_embed.proj.{*}"
    [settings]                          # fields of ViTConfig that arrays cannot hold
    num_heads = 6

{i} stands for a number, {*} for anything. A name that matches no line stays as it is. Export applies the lines in
reverse, so both sides of a line need the same placeholders.
"""

import os
import re
import tomllib
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from vit_jax import InputError, ViTConfig
from vit_jax.settings import lists_to_tuples
from weights_convert.layouts import LAYOUTS, Layout

KEYS = ("like", "unused", "names", "settings")
PLACEHOLDERS = {"{i}": r"(\d+)", "{*}": r"(.+)"}


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
    names, settings, unused = stored.get("names", {}), stored.get("settings", {}), stored.get("unused", [])
    _check_names(names)
    _check_settings(settings)
    _check_unused(unused)
    to_base = [_make_renamer(own, its) for own, its in names.items()]
    from_base = [_make_renamer(its, own) for own, its in names.items()]
    return replace(
        base,
        name="own",
        title=f"{base.title}, under your own names",
        infer_architecture=lambda shapes, size: base.infer_architecture(shapes, size) | settings,
        unused=(*base.unused, *unused),
        rename_key=lambda name: base.rename_key(_rename(to_base, name)),
        export_key=lambda name, config: _rename(from_base, base.export_key(name, config)),
    )


def _check_names(names: Any) -> None:
    if not isinstance(names, dict) or not all(isinstance(its, str) for its in names.values()):
        raise InputError('[names] needs lines of the form "your name" = "its name"')
    for own, its in names.items():
        placeholders, others = sorted(_find_placeholders(own)), sorted(_find_placeholders(its))
        if placeholders != others or len(set(placeholders)) < len(placeholders):
            raise InputError(f'"{own}" = "{its}" needs each of {{i}} and {{*}} once on both sides, or on neither')


def _check_settings(settings: Any) -> None:
    if not isinstance(settings, dict):
        raise InputError("settings must be a table")
    types = {
        field.name: type(field.default)
        for field in fields(ViTConfig)
        if field.default is not None and not is_dataclass(field.default)
    }
    if unknown := sorted(set(settings) - set(types)):
        raise InputError(f"[settings] takes fields of ViTConfig, not {', '.join(unknown)}")
    for name, value in settings.items():
        if type(lists_to_tuples({name: value})[name]) is not types[name]:
            raise InputError(f"[settings] {name} = {value!r} must be of type {types[name].__name__}")


def _check_unused(unused: Any) -> None:
    if not isinstance(unused, list):
        raise InputError("unused must be a list of regular expressions")
    try:
        for pattern in unused:
            re.compile(pattern)
    except (re.error, TypeError) as error:
        raise InputError(f"unused must be a list of regular expressions ({error})") from error


def _find_placeholders(name: str) -> list[str]:
    return re.findall(r"\{[i*]\}", name)


def _make_renamer(pattern: str, template: str) -> Callable[[str], str | None]:
    """Return a function that rewrites names that match the pattern, and returns None for others."""
    order = _find_placeholders(pattern)
    pieces = [PLACEHOLDERS.get(piece, re.escape(piece)) for piece in re.split(r"(\{[i*]\})", pattern)]
    compiled = re.compile("".join(pieces))

    def rename(name: str) -> str | None:
        match = compiled.fullmatch(name)
        if match is None:
            return None
        values = dict(zip(order, match.groups(), strict=True))
        return re.sub(r"\{[i*]\}", lambda placeholder: values[placeholder[0]], template)

    return rename


def _rename(renamers: list[Callable[[str], str | None]], name: str) -> str:
    """Return the name rewritten by the first renamer that matches; unchanged if none does."""
    candidates = (rename(name) for rename in renamers)
    return next((new for new in candidates if new is not None), name)
