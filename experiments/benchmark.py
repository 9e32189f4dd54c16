"""python -m experiments.benchmark explain: what looking inside costs, as multiples of the plain forward pass.

`benchmark vit` is in benchmark_vit.py, `benchmark caption` in benchmark_caption.py; how all are measured in timing.py.
"""

import argparse
import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import nnx

from experiments import benchmark_caption, benchmark_vit, runtime
from experiments.timing import alternating, machine, ratio_table, write_report
from vit_jax import CONFIGS, InputError, VisionTransformer, forward_with_attention, relevance
from vit_jax.cli import Parser, image_size, positive_int
from vit_jax.errors import one_line_errors


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m experiments.benchmark", description="Measure speed, as ratios within one run.")
    commands = parser.add_subparsers(dest="what", required=True)
    explain = commands.add_parser("explain", help="looking inside, beside the plain forward pass")
    explain.add_argument("--model", default="B_16", help="a named architecture, with random weights")
    explain.add_argument("--image-size", type=image_size, metavar="N|HxW")
    explain.add_argument("--batch-size", type=positive_int, default=1)
    explain.add_argument("--classes", type=positive_int, default=10, help="targets in the last row")
    explain.add_argument("--rounds", type=positive_int, default=7)
    explain.add_argument("--out", help="folder for benchmark_explain.json and .md")
    benchmark_vit.add_flags(commands.add_parser("vit", help="forward pass or training step, beside PyTorch's"))
    benchmark_caption.add_flags(commands.add_parser("caption", help="captions, beside CATR in PyTorch"))
    return parser


def explain_programs(model: VisionTransformer, images: Any, classes: int) -> dict[str, Callable[[], Any]]:
    """The plain forward pass first, then what looks inside."""
    config = model.config
    fused = jax.jit(lambda m, x: forward_with_attention(m, x, head_fusion="mean"))
    plain = jax.jit(lambda m, x: m(x))
    one_map = jax.jit(relevance)
    targets = np.arange(classes, dtype=np.int32)[None].repeat(len(images), axis=0) % config.num_classes
    return {
        "forward": lambda: plain(model, images),
        "forward_with_attention, heads fused": lambda: fused(model, images),
        "relevance, 1 class": lambda: one_map(model, images, targets[:, :1]),
        f"relevance, {classes} classes": lambda: one_map(model, images, targets),
    }


def run_explain(args: argparse.Namespace) -> int:
    """Measure, and print the table."""
    if args.model not in CONFIGS:
        raise InputError(f"unknown model {args.model!r}: one of {', '.join(CONFIGS)}")
    config = CONFIGS[args.model]
    config = config.resized(args.image_size or config.image_size)
    model = jax.jit(lambda: VisionTransformer(config, rngs=nnx.Rngs(0)))()
    images = jax.random.uniform(jax.random.key(0), (args.batch_size, *config.image_size, 3), minval=-1, maxval=1)
    seconds = alternating(explain_programs(model, images, args.classes), args.rounds)
    about = machine()
    size = f"{config.image_size[0]}x{config.image_size[1]}"
    text = (
        f"{args.model} at {size}, batch {args.batch_size}, {args.rounds} rounds; {about['device']}; {about['versions']}"
    )
    text += "\n\n" + ratio_table(seconds, "the forward pass")
    print(text)
    if args.out:
        write_report(args.out, "benchmark_explain", text, about | {"arguments": vars(args)}, seconds)
    return 0


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Run the command: 0 done, 2 a wrong input."""
    args = _parser().parse_args(argv)
    runtime.configure()
    return {"explain": run_explain, "vit": benchmark_vit.run, "caption": benchmark_caption.run}[args.what](args)


if __name__ == "__main__":
    sys.exit(main())
