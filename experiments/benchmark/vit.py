"""python -m experiments.benchmark vit: the forward pass, or a training step, next to the PyTorch originals.

Each program is a process of its own, has the same random weights and must give the same numbers. A large matrix product
alternates with them, so that each round shows what fraction of the machine's own rate the model reaches.
"""

import argparse
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np

from experiments.benchmark.flops import PRODUCT, count_flops, matrix_rate
from experiments.benchmark.machine import describe_machine
from experiments.benchmark.peer_programs import FAMILY_OF, add_peer_flags, parse_peers
from experiments.benchmark.programs import MATRIX_PRODUCT, OURS, build_program
from experiments.benchmark.results import format_ratios, write_timings
from experiments.benchmark.timing import Timings, time_alternately
from experiments.benchmark.worker import Worker
from experiments.benchmark.workload import Workload, add_workload_flags, parse_workload
from vit_jax import InputError
from vit_jax.cli import positive_int

TOLERANCE = {"float32": 1e-3, "bfloat16": 5e-2}  # of the largest logit; bfloat16 has 8 significant bits


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `benchmark vit`."""
    add_workload_flags(parser)
    add_peer_flags(parser)
    parser.add_argument("--rounds", type=positive_int, default=7)
    parser.add_argument("--out", help="folder for benchmark_vit.json, .md and .png")


def run_benchmark(args: argparse.Namespace) -> None:
    """Measure, and print the ratios to ours."""
    workload = parse_workload(args)
    names = [OURS, *parse_peers(args, workload)]
    machine = describe_machine(args.against)
    with ExitStack() as stack:
        workers = {
            name: stack.enter_context(Worker(build_program, workload, name)) for name in [*names, MATRIX_PRODUCT]
        }
        timings = time_alternately(dict(workers), args.rounds, partial(check_outputs, workload))
    title = f"{args.model} at {workload}, {args.rounds} rounds"
    matrix_seconds = timings.seconds.pop(MATRIX_PRODUCT)
    text = "; ".join([title, *machine.values()]) + "\n\n" + format_ratios(timings, "ours", images=args.batch_size)
    text += "\n\n" + _format_rate(workload, timings, matrix_seconds)
    print(text)
    if args.out:
        measured = {"flops": count_flops(workload), "matrix": matrix_seconds.tolist()}
        title = f"{title}\n{machine['device']}"
        write_timings(args, text, machine, timings, times="ours", title=title, measured=measured)


def check_outputs(workload: Workload, outputs: dict[str, Any]) -> None:
    """Raise InputError when a peer's first output differs from ours: a comparison would mean nothing."""
    ours = np.asarray(outputs[OURS], np.float32) / (workload.batch_size if workload.train else 1)
    for name in set(outputs) & set(FAMILY_OF):
        error = np.abs(outputs[name] - ours).max() / np.abs(ours).max()
        if not error < TOLERANCE[workload.dtype]:
            kind = "another loss" if workload.train else "other logits"
            raise InputError(f"{name} gives {kind} than ours, by {error:.1e} of the largest")


def _format_rate(workload: Workload, timings: Timings, matrix_seconds: np.ndarray) -> str:
    """Return a sentence on the fraction of the machine's matrix rate that ours reaches, by round."""
    flops, rate = count_flops(workload), matrix_rate(matrix_seconds)
    fraction = flops / timings.seconds[OURS] / rate
    return (
        f"here: {flops / 1e9:,.1f} GFLOP, {np.median(fraction):.2f} ({fraction.min():.2f} to {fraction.max():.2f}) of "
        f"the {np.median(rate) / 1e9:,.0f} GFLOP/s of a {PRODUCT}x{PRODUCT} matrix product"
    )
