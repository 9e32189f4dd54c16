"""Argument parser and argument types shared by all commands."""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from vit_jax import notes
from vit_jax.errors import InputError
from vit_jax.flag_files import read_flag_file
from vit_jax.numerals import parse_float, parse_int
from vit_jax.suggest import did_you_mean
from vit_jax.version import VERSION

COMMAND = "vit-jax"  # see vit_jax_command.py
CONFIG_FLAG = "--config"
SEEDS = 2**32
ALIASES = re.compile(r"(?<=^argument )(--[\w-]+)(/-[\w-]+)+:")  # of argparse's messages


def program_name(module: str) -> str:
    """Return how the user starts a program: vit-jax NAME, if that command runs, else python -m MODULE."""
    if Path(sys.argv[0]).stem != COMMAND:
        return f"python -m {module}"
    return " ".join([COMMAND, *module.split(".")[1:]])


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """A formatter that adds each flag's default to its help, unless there is none or the help states it."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        states_default = "default" in (action.help or "")
        if states_default or action.default is None or action.default is False or action.default == []:
            return action.help
        return super()._get_help_string(action)


class _Silence(argparse.Action):
    """Silences the notes of the running program, see vit_jax/notes.py. The parsed arguments do not have it."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        notes.silence()


class Parser(argparse.ArgumentParser):
    """An argument parser for flags and positionals in any order, without abbreviations.

    A wrong flag or choice prints one line, with similar names, and exits with code 2.
    has_commands: the parser has subcommands, whose parsers have the flags that all programs share.
    run_config:   --config also takes a run's config.json, which is then `config` of the parsed arguments.
    """

    def __init__(self, *args: Any, has_commands: bool = False, run_config: bool = False, **kwargs: Any):
        kwargs.setdefault("allow_abbrev", False)
        kwargs.setdefault("formatter_class", HelpFormatter)
        super().__init__(*args, **kwargs)
        self._is_parsing = False
        self._run_config = run_config
        version = f"{COMMAND} {VERSION}"
        self.add_argument("--version", action="version", version=version, help="print the version and exit")
        if not has_commands:
            what = "TOML file of flags, or config.json of a run" if run_config else "TOML file of flags"
            help = f"{what}; flags on the command line replace its values"
            self.add_argument(CONFIG_FLAG, metavar="FILE", default=argparse.SUPPRESS, help=help)
            help = "print results, warnings and errors only: no progress and no notes"
            self.add_argument("--quiet", action=_Silence, nargs=0, default=argparse.SUPPRESS, help=help)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse flags and positionals in any order. A subcommand's parser is called here too."""
        arguments = list(sys.argv[1:] if args is None else args)
        if self._is_parsing:  # argparse parses intermixed arguments in two calls
            return super().parse_known_args(arguments, namespace)
        self._check_flags(arguments)
        arguments = self._expand_config(arguments)
        if self._subparsers is not None:
            return super().parse_known_args(arguments, namespace)
        self._is_parsing = True
        try:
            return self.parse_known_intermixed_args(arguments, namespace)
        finally:
            self._is_parsing = False

    def _check_flags(self, arguments: Sequence[str]) -> None:
        """Exit for the first unknown flag. Those after a subcommand are left to its own parser."""
        for argument in arguments:
            if argument == "--" or (self._subparsers is not None and not argument.startswith("-")):
                return
            name = argument.partition("=")[0]
            is_flag = argument.startswith("-") and argument != "-" and " " not in name
            if is_flag and parse_float(argument) is None and name not in self._option_string_actions:
                self.error(f"unknown flag {name}{did_you_mean(name, self._option_string_actions, prefix='--')}")

    def _expand_config(self, arguments: list[str]) -> list[str]:
        """Replace --config FILE by the arguments that the file stands for.

        They come after the others, where a flag of several values takes no positional.
        """
        end = arguments.index("--") if "--" in arguments else len(arguments)
        names = [argument.partition("=")[0] for argument in arguments[:end]]
        if CONFIG_FLAG not in names or CONFIG_FLAG not in self._option_string_actions:
            return arguments
        if names.count(CONFIG_FLAG) > 1:
            self.error(f"{CONFIG_FLAG} is given twice; give one file")
        start = names.index(CONFIG_FLAG)
        stop = start + (1 if "=" in arguments[start] else 2)
        file = arguments[start].partition("=")[2] if stop == start + 1 else "".join(arguments[:end][start + 1 : stop])
        if not file or (file.startswith("-") and stop > start + 1):
            return arguments  # argparse says that a value is missing
        if Path(file).suffix == ".json":
            if not self._run_config:
                raise InputError(f"{file}: not a TOML file; only the training programs read a run's config.json")
            return arguments
        given = [name for name in names if name in self._option_string_actions]
        added = read_flag_file(Path(file), self, given)
        return arguments[:start] + arguments[stop:end] + added + arguments[end:]

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        """Return the values of an argument; called by argparse. Raises ArgumentError for an empty text.

        An unset variable of a shell gives one, and as a path it would be the current folder.
        """
        if "" in arg_strings and action.type is None and action.choices is None:
            raise argparse.ArgumentError(action, "the value is empty")
        return super()._get_values(action, arg_strings)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Raise ArgumentError for a value that is none of the choices; called by argparse."""
        if action.choices is not None and value not in action.choices:
            choices = list(map(str, action.choices))
            message = f"{value!r} is not one of {', '.join(choices)}{did_you_mean(str(value), choices)}"
            raise argparse.ArgumentError(action, message)

    def error(self, message: str) -> NoReturn:
        """Print one line and exit with code 2. A flag has its first name, without aliases."""
        message = ALIASES.sub(r"\1:", message)
        print(f"error: {message} (see {self.prog} --help)", file=sys.stderr)
        sys.exit(2)


def image_size(text: str) -> tuple[int, int]:
    """Parse 224 or 224x320 as (height, width) in pixels."""
    sides = [parse_int(part) or 0 for part in text.lower().split("x")]
    if len(sides) > 2 or min(sides) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size: N or HEIGHTxWIDTH")
    return sides[0], sides[-1]


def integer(text: str) -> int:
    """Parse a whole number, which may be negative."""
    value = parse_int(text)
    if value is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return value


def positive_int(text: str) -> int:
    """Parse an integer >= 1."""
    value = parse_int(text)
    if value is None or value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return value


def non_negative_int(text: str) -> int:
    """Parse an integer >= 0."""
    value = parse_int(text)
    if value is None or value < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return value


def seed(text: str) -> int:
    """Parse the seed of a random generator: an integer in [0, 2^32), since jax drops higher bits."""
    value = parse_int(text)
    if value is None or not 0 <= value < SEEDS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a seed, a whole number from 0 to {SEEDS - 1}")
    return value


def number(text: str) -> float:
    """Parse a finite number."""
    value = parse_float(text)
    if value is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number")
    return value


def fraction(text: str) -> float:
    """Parse a number in [0, 1)."""
    value = parse_float(text)
    if value is None or not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number in [0, 1)")
    return value


def non_negative(text: str) -> float:
    """Parse a finite number >= 0."""
    value = parse_float(text)
    if value is None or value < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 0")
    return value
