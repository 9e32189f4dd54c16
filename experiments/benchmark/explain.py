"""python -m experiments.benchmark explain: the cost of explanation methods, as multiples of the plain forward pass."""

import argparse
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from experiments.benchmark.machine import describe_machine
from experiments.benchmark.results import format_ratios, write_timings
from experiments.benchmark.timing import time_alternately
from experiments.benchmark.workload import create_model, find_config
from experiments.common.flags import add_batch_size_flag
from vit_jax import VisionTransformer, forward_with_attention, relevance
from vit_jax.cli import image_size, positive_int


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `benchmark explain`."""
    parser.add_argument("--model", default="B_16", help="a named architecture, with random weights (B_16)")
    parser.add_argument("--image-size", type=image_size, metavar="N|HxW")
    add_batch_size_flag(parser, 1)
    parser.add_argument("--classes", type=positive_int, default=10, help="targets in the last row (10)")
    parser.add_argument("--rounds", type=positive_int, default=7)
    parser.add_argument("--out", help="folder for benchmark_explain.json, .md and .png")


def build_programs(model: VisionTransformer, images: Any, classes: int) -> dict[str, Callable[[], Any]]:
    """Build the plain forward pass, then the explanation methods."""
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


def run_benchmark(args: argparse.Namespace) -> None:
    """Measure, and print the table."""
    config = find_config(args.model, args.image_size)
    images = jax.random.uniform(
        jax.random.key(0), (args.batch_size, *config.image_size, config.in_channels), minval=-1, maxval=1
    )
    timings = time_alternately(build_programs(create_model(config), images, args.classes), args.rounds)
    machine = describe_machine()
    size = f"{config.image_size[0]}x{config.image_size[1]}"
    title = f"{args.model} at {size}, batch {args.batch_size}, {args.rounds} rounds; {machine['device']}"
    times = "the forward pass"
    text = f"{title}; {machine['versions']}\n\n" + format_ratios(timings, times, images=args.batch_size)
    print(text)
    if args.out:
        write_timings(args, text, machine, timings, times=times, title=title)
