"""The command vit-jax: every program of the library as a subcommand. Imports only the standard library.

`vit-jax finetune ...` is `python -m experiments.finetune ...`, and `vit-jax convert ...` is
`python -m weights_convert convert ...`. The command always runs the library's own packages. `python -m experiments.X`
prefers a folder called experiments in the current folder, and so do the processes that it would start.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).absolute().parent
PACKAGES = ("vit_jax", "caption", "weights_convert", "experiments")


class _OwnPackages:
    """Finds the library's packages next to this file, whatever else sys.path holds under their names."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Return where a package is; for Python's import."""
        return PathFinder.find_spec(name, [str(ROOT)]) if name in PACKAGES else None


# At import, since the script of the command imports this module in the processes that it spawns too.
sys.meta_path.insert(0, _OwnPackages)


class Program(NamedTuple):
    """A subcommand. module: whose main() it calls. is_nested: whether main() takes the subcommand's name."""

    module: str
    help: str
    is_nested: bool = False


PROGRAMS = {
    "finetune": Program("experiments.finetune", "fine-tune a model on your images, or train a small one"),
    "predict": Program("experiments.predict", "classify the images of a folder, or store their features"),
    "evaluate": Program("experiments.evaluate.__main__", "accuracy on labelled images, or scores of captions"),
    "explain": Program("experiments.explain.__main__", "heat maps of what a prediction depends on"),
    "caption": Program("experiments.caption.__main__", "caption images, with a heat map for each word"),
    "train_caption": Program("experiments.train_caption.__main__", "train or fine-tune a captioner"),
    "sweep": Program("experiments.sweep.__main__", "train several models and settings"),
    "report": Program("experiments.report.__main__", "one page about finished runs"),
    "benchmark": Program("experiments.benchmark.__main__", "measure speed and memory"),
    "convert": Program("weights_convert.__main__", "convert a checkpoint of another library", is_nested=True),
    "inspect": Program("weights_convert.__main__", "show the arrays and the architecture of a file", is_nested=True),
    "verify": Program("weights_convert.__main__", "compare with the PyTorch original", is_nested=True),
    "export": Program("weights_convert.__main__", "export a model to another library's layout", is_nested=True),
    "push": Program("weights_convert.__main__", "upload a model to the Hugging Face hub", is_nested=True),
    "list": Program("weights_convert.__main__", "list layouts, releases and architectures", is_nested=True),
}


def program_command(program: str) -> tuple[str, ...]:
    """Return the command line that starts a program in a new process, in any folder and without an installation."""
    return (sys.executable, "-P", str(Path(__file__).absolute()), program)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Return the exit code of the program, or 2 for an unknown one."""
    from weights_convert.startup import describe_version, exit_on_signals, print_text

    exit_on_signals()
    arguments = list(sys.argv[1:] if argv is None else argv)
    name = arguments[0] if arguments else ""
    if name == "--version":
        return print_text(describe_version())
    if name in ("-h", "--help"):
        return print_text(_help())
    program = PROGRAMS.get(name.replace("-", "_"))
    if program is None:
        print(f"error: {_describe_wrong(name)} (see vit-jax --help)", file=sys.stderr)
        return 2
    sys.argv[1:] = arguments if program.is_nested else arguments[1:]
    if sys.argv[1:] == ["--version"]:
        return print_text(describe_version())
    return import_module(program.module).main()


def _help() -> str:
    width = max(map(len, PROGRAMS))
    lines = ["usage: vit-jax COMMAND [ARGUMENT ...]", "       vit-jax COMMAND --help", "       vit-jax --version", ""]
    return "\n".join(lines + [f"  {name:{width}}  {program.help}" for name, program in PROGRAMS.items()])


def _describe_wrong(name: str) -> str:
    from vit_jax.suggest import did_you_mean

    if not name or name.startswith("-"):
        return f"{f'unknown flag {name}' if name else 'no command'}; give one of {', '.join(PROGRAMS)}"
    return f"unknown command {name!r}: one of {', '.join(PROGRAMS)}{did_you_mean(name, PROGRAMS)}"


if __name__ == "__main__":
    sys.exit(main())
