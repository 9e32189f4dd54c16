"""Flags in a TOML file: its keys are the flags of a program without dashes.

    learning-rate = 1e-4     # --learning-rate 1e-4; the name of the setting, learning_rate, is accepted too
    crop-scale = [0.3, 1.0]  # --crop-scale 0.3 1.0
    scan-layers = true       # --scan-layers; false stands for the flag that turns it off, or for none

A flag on the command line replaces the file's.
"""

import argparse
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vit_jax.errors import InputError
from vit_jax.suggest import did_you_mean

NEGATIVE = re.compile(r"-\d+|-\d*\.\d+")  # the negative numbers that argparse recognizes
NOT_IN_FILES = ("help", "version", "config")


def read_flag_file(file: Path, parser: argparse.ArgumentParser, given: Iterable[str]) -> list[str]:
    """Return the command-line arguments that a TOML file stands for.

    given: flags of the command line, such as "--lr"; the file's arguments for the same settings are left out.
    Raises InputError that names the file and the key: for an unknown key, one given twice, a value that its flag does
    not take, and for a file that is not TOML, has tables or is empty.
    """
    flags = _flags_by_key(parser)
    replaced = {parser._option_string_actions[flag].dest for flag in given}
    keys: dict[str, str] = {}
    arguments: list[str] = []
    for key, value in _read_toml(file).items():
        name = key.replace("_", "-")
        if name not in flags:
            raise InputError(f"{file}: {_describe_unknown_key(key, name, parser, flags)}")
        action = parser._option_string_actions[flags[name]]
        if action.dest in keys:
            raise InputError(f"{file}: {keys[action.dest]} and {key} are one flag; leave one out")
        keys[action.dest] = key
        try:
            added = _arguments_of(name, flags[name], action, value)
            _check_values(parser, action, added)
        except argparse.ArgumentError as error:
            raise InputError(f"{file}: {key}: {error.message}") from error
        arguments += [] if action.dest in replaced else added
    return arguments


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8-sig"))  # Windows editors write its signature
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: not a TOML file: {error}") from error
    table = next((key for key, value in content.items() if isinstance(value, dict)), None)
    if table is not None:
        raise InputError(f"{file}: {table} is a table; write flags at the top of the file, as KEY = VALUE")
    if not content:
        raise InputError(f"{file}: no flags in it; write them as KEY = VALUE, or leave out --config")
    return content


def _flags_by_key(parser: argparse.ArgumentParser) -> dict[str, str]:
    """Return the flag of each key. A setting that is on by default has the key of its --no-NAME, and NAME."""
    flags = {flag[2:]: flag for flag in parser._option_string_actions if flag.startswith("--")}
    for flag, action in parser._option_string_actions.items():
        if isinstance(action, argparse._StoreFalseAction):
            flags[action.dest.replace("_", "-")] = flag
    return {key: flag for key, flag in flags.items() if key not in NOT_IN_FILES}


def _describe_unknown_key(key: str, name: str, parser: argparse.ArgumentParser, flags: Mapping[str, str]) -> str:
    if name in {action.dest for action in parser._get_positional_actions()}:
        return f"{key} has no flag; give it on the command line"
    return f"unknown key {key!r}: {parser.prog} has no flag of that name{did_you_mean(name, flags)}"


def _arguments_of(key: str, flag: str, action: argparse.Action, value: Any) -> list[str]:
    """Return the arguments of one key. Raises ArgumentError for a value of a type that the flag does not take."""
    if isinstance(value, bool):
        return _arguments_of_switch(key, flag, action, value)
    if action.nargs == 0:
        raise argparse.ArgumentError(action, f"true or false, not {value!r}")
    values = value if isinstance(value, list) else [value]
    if not values or not all(isinstance(item, int | float | str) and not isinstance(item, bool) for item in values):
        raise argparse.ArgumentError(action, f"numbers or texts, not {value!r:.60}")
    if isinstance(action, argparse._AppendAction):
        return [f"{flag}={item}" for item in values]
    if len(values) == 1:
        return [f"{flag}={values[0]}"]
    flag_like = next((text for text in map(str, values) if text.startswith("-") and not NEGATIVE.fullmatch(text)), None)
    if flag_like is not None:
        raise argparse.ArgumentError(action, f"a list cannot hold {flag_like!r}, which argparse takes for a flag")
    return [flag, *map(str, values)]


def _arguments_of_switch(key: str, flag: str, action: argparse.Action, value: bool) -> list[str]:
    if isinstance(action, argparse.BooleanOptionalAction):
        on, off = action.option_strings[0], action.option_strings[-1]
        return [on if value == (flag == on) else off]
    if isinstance(action, argparse._StoreFalseAction) and f"--{key}" != flag:
        value = not value
    elif action.nargs not in (0, "?") or (action.nargs == "?" and not value):
        raise argparse.ArgumentError(action, f"a value, not {str(value).lower()}")
    return [flag] if value else []


def _check_values(parser: argparse.ArgumentParser, action: argparse.Action, arguments: list[str]) -> None:
    """Raise ArgumentError for values that the flag does not accept, as on the command line."""
    flag, *texts = arguments or [""]
    texts = [text.partition("=")[2] for text in arguments] if "=" in flag else texts
    if not texts:
        return
    for group in [[text] for text in texts] if isinstance(action, argparse._AppendAction) else [texts]:
        if parser._match_argument(action, "A" * len(group)) != len(group):
            wanted = f"{action.nargs} values" if isinstance(action.nargs, int) else "one value"
            raise argparse.ArgumentError(action, f"{wanted}, not {len(group)}")
        parser._get_values(action, group)
