"""python -m experiments.benchmark: speed and memory, ours beside the PyTorch originals.

Everything is measured as ratios between programs that take turns in one run; a module of experiments/benchmark each.
"""

import argparse
import sys

from experiments.benchmark import caption, explain, loading, memory, scale, startup, vit
from experiments.common import runtime
from vit_jax.cli import Parser
from vit_jax.errors import one_line_errors

WHAT = {
    "vit": (vit, "forward pass or training step, beside PyTorch's"),
    "caption": (caption, "captions, beside CATR in PyTorch"),
    "input": (loading, "pictures from disk, beside PyTorch's DataLoader"),
    "explain": (explain, "looking inside, beside the plain forward pass"),
    "compile": (startup, "from the start of a program to its first step"),
    "memory": (memory, "the most memory that a process holds, beside PyTorch's"),
    "scale": (scale, "time as image size, batch and depth grow"),
}


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m experiments.benchmark", description="Measure speed, as ratios within one run.")
    commands = parser.add_subparsers(dest="what", required=True)
    for name, (module, about) in WHAT.items():
        module.add_flags(commands.add_parser(name, help=about, description=module.__doc__))
    return parser


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Run the command: 0 done, 2 a wrong input."""
    args = _parser().parse_args(argv)
    runtime.configure()
    return WHAT[args.what][0].run(args)


if __name__ == "__main__":
    sys.exit(main())
