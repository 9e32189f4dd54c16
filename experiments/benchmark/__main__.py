"""python -m experiments.benchmark: speed and memory of this library, next to the PyTorch originals.

Results are ratios between programs that alternate within one run. Each benchmark is a module of this package.
"""

import argparse
import sys

from experiments.benchmark import caption, explain, loading, memory, scale, startup, vit
from experiments.common import runtime
from vit_jax.cli import Parser, program_name
from vit_jax.errors import one_line_errors
from vit_jax.outputs import check_out_folder

BENCHMARKS = {
    "vit": (vit, "forward pass or training step, next to PyTorch's"),
    "caption": (caption, "captions, next to CATR in PyTorch"),
    "input": (loading, "loading images from disk, next to PyTorch's DataLoader"),
    "explain": (explain, "explanation methods, next to the plain forward pass"),
    "compile": (startup, "from the start of a program to its first step"),
    "memory": (memory, "peak memory of a process, next to PyTorch's"),
    "scale": (scale, "time as image size, batch and depth grow"),
}


def _parser() -> argparse.ArgumentParser:
    description = "Measure speed, as ratios within one run."
    parser = Parser(prog=program_name("experiments.benchmark"), has_commands=True, description=description)
    commands = parser.add_subparsers(dest="what", required=True)
    for name, (module, help_text) in BENCHMARKS.items():
        module.add_flags(commands.add_parser(name, help=help_text, description=module.__doc__))
    return parser


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Run the command. Returns 0, or 2 for a wrong input."""
    args = _parser().parse_args(argv)
    runtime.configure()
    if args.out is not None:
        check_out_folder(args.out)
    BENCHMARKS[args.what][0].run_benchmark(args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
