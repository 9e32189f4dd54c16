"""python -m experiments.benchmark explain: what looking inside costs, as multiples of the plain forward pass.

The programs compared take turns in one process, round by round, so that a noisy machine disturbs them alike; a ratio is
taken within each round, and its median and spread over the rounds are told.
"""

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from experiments import runtime
from vit_jax import CONFIGS, InputError, VisionTransformer, forward_with_attention, relevance
from vit_jax.cli import Parser, image_size, positive_int
from vit_jax.errors import one_line_errors
from vit_jax.files import written_file


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m experiments.benchmark", description="Measure speed, as ratios within one run.")
    parser.add_argument("what", choices=("explain",))
    parser.add_argument("--model", default="B_16", help="a named architecture, with random weights")
    parser.add_argument("--image-size", type=image_size, metavar="N|HxW")
    parser.add_argument("--batch-size", type=positive_int, default=1)
    parser.add_argument("--classes", type=positive_int, default=10, help="targets in the last row")
    parser.add_argument("--rounds", type=positive_int, default=7)
    parser.add_argument("--out", help="folder for benchmark_explain.json and .md")
    return parser


def alternating(programs: dict[str, Callable[[], Any]], rounds: int) -> dict[str, np.ndarray]:
    """Seconds of every program in every round, all programs once a round, after one run each to compile."""
    for program in programs.values():
        jax.block_until_ready(program())
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for number in range(rounds):
        names = list(programs) if number % 2 == 0 else list(programs)[::-1]
        for name in names:
            start = time.perf_counter()
            jax.block_until_ready(programs[name]())
            seconds[name].append(time.perf_counter() - start)
        print(f"round {number + 1}/{rounds}", file=sys.stderr, flush=True)
    return {name: np.array(values) for name, values in seconds.items()}


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


def ratio_table(seconds: dict[str, np.ndarray]) -> str:
    """Markdown: median seconds, and the median, least and greatest ratio to the first program."""
    base = next(iter(seconds.values()))
    lines = ["| program | median s | times the forward pass | least | greatest |", "|---|---|---|---|---|"]
    for name, values in seconds.items():
        ratios = values / base
        lines.append(
            f"| {name} | {np.median(values):.4f} | {np.median(ratios):.2f} | {ratios.min():.2f} | {ratios.max():.2f} |"
        )
    return "\n".join(lines)


def machine() -> dict[str, str]:
    """What a figure must be read with: the device, its cores, and the versions."""
    import os

    import flax
    import jaxlib

    device = jax.devices()[0]
    versions = f"jax {jax.__version__}, jaxlib {jaxlib.__version__}, flax {flax.__version__}"
    kind = f"{device.device_kind}, {os.cpu_count()} cores, {platform.machine()}"
    return {"device": kind, "versions": f"Python {platform.python_version()}, {versions}"}


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Run the command: 0 done, 2 a wrong input."""
    args = _parser().parse_args(argv)
    runtime.configure()
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
    text += "\n\n" + ratio_table(seconds)
    print(text)
    if args.out:
        folder = Path(args.out)
        folder.mkdir(parents=True, exist_ok=True)
        stored = about | {"arguments": vars(args), "seconds": {k: v.tolist() for k, v in seconds.items()}}
        with written_file(folder / "benchmark_explain.json") as beside:
            beside.write_text(json.dumps(stored) + "\n")
        with written_file(folder / "benchmark_explain.md") as beside:
            beside.write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
