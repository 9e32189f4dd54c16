"""python -m experiments.benchmark scale: how time grows with image size, batch and depth, next to the operations.

One of the three is varied at a time, from the named model; all workloads alternate.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from experiments.benchmark.flops import build_matrix_product, count_flops, matrix_rate
from experiments.benchmark.machine import describe_machine
from experiments.benchmark.programs import MATRIX_PRODUCT, build_ours
from experiments.benchmark.results import format_table, write_results
from experiments.benchmark.timing import time_alternately
from experiments.benchmark.workload import Workload, add_mode_flags, create_model, find_config
from experiments.common.plots import BLUE, GREEN, VERMILION
from vit_jax.cli import image_size, positive_int
from vit_jax.plot import new_figure, save_figure

AXES = {"image size": BLUE, "batch": VERMILION, "depth": GREEN}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `benchmark scale`."""
    parser.add_argument("--model", default="B_16_imagenet1k", help="a named architecture")
    parser.add_argument(
        "--image-size", type=image_size, metavar="N|HxW", help="where it is not varied (default: the model's own)"
    )
    parser.add_argument("--image-sizes", type=image_size, nargs="+", default=[(n, n) for n in (96, 192, 384, 576)])
    parser.add_argument("--batch-sizes", type=positive_int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--depths", type=positive_int, nargs="+", default=[3, 6, 12, 24])
    add_mode_flags(parser)
    parser.add_argument("--rounds", type=positive_int, default=5)
    parser.add_argument("--out", help="folder for benchmark_scale.json, .md and .png")


def list_workloads(args: argparse.Namespace) -> dict[tuple[str, str], Workload]:
    """Return the workloads by (what is varied, its value). Raises InputError for an unknown model or size."""
    config = replace(find_config(args.model, args.image_size), dropout=0.0, attention_dropout=0.0)
    plain = Workload(config, 1, args.train, False, args.dtype)
    sizes = {("image size", f"{h}x{w}"): replace(plain, config=config.resized((h, w))) for h, w in args.image_sizes}
    batches = {("batch", str(count)): replace(plain, batch_size=count) for count in args.batch_sizes}
    depths = {("depth", str(count)): replace(plain, config=replace(config, depth=count)) for count in args.depths}
    return sizes | batches | depths


def plot(flops: dict[tuple[str, str], float], seconds: dict[str, np.ndarray], path: Path, *, title: str) -> None:
    """Plot median seconds over operations on log scales, a line per varied quantity; dashed: proportional growth."""
    figure = new_figure(6.0, 4.0)
    axes = figure.subplots()
    for axis, colour in AXES.items():
        keys = [key for key in flops if key[0] == axis]
        x = [flops[key] / 1e9 for key in keys]
        y = [np.median(seconds[" ".join(key)]) for key in keys]
        axes.plot(x, y, "o-", color=colour, markersize=4, label=f"{axis}: {', '.join(value for _, value in keys)}")
    ends = np.array([min(flops.values()), max(flops.values())])
    rate = max(flops[key] / np.median(seconds[" ".join(key)]) for key in flops)
    axes.plot(
        ends / 1e9, ends / rate, "--", color="grey", linewidth=1, label=f"{rate / 1e9:,.0f} GFLOP/s, the best here"
    )
    axes.set(xscale="log", yscale="log", xlabel="GFLOP of the products", ylabel="seconds")
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=7)
    axes.set_title(title, fontsize=8, parse_math=False)
    save_figure(figure, path)


def run_benchmark(args: argparse.Namespace) -> None:
    """Measure, and print the table."""
    workloads = list_workloads(args)
    programs: dict[str, Any] = {
        " ".join(key): build_ours(workload, create_model(workload.config)) for key, workload in workloads.items()
    }
    timings = time_alternately(programs | {MATRIX_PRODUCT: build_matrix_product(args.dtype)}, args.rounds)
    rate = matrix_rate(timings.seconds[MATRIX_PRODUCT])
    flops = {key: count_flops(workload) for key, workload in workloads.items()}
    rows = []
    for (axis, value), count in flops.items():
        seconds = timings.seconds[f"{axis} {value}"]
        cells = [axis, value, f"{count / 1e9:,.1f}", f"{np.median(seconds):.4f}"]
        rows.append([*cells, f"{count / np.median(seconds) / 1e9:,.0f}", f"{np.median(count / seconds / rate):.2f}"])
    machine = describe_machine()
    start = next(workload for (axis, _), workload in workloads.items() if axis == "batch")
    title = f"{args.model}, from {replace(start, batch_size=1)}, {args.rounds} rounds"
    table = format_table(["varied", "to", "GFLOP", "median s", "GFLOP/s", "of the matrix rate"], rows)
    text = "; ".join([title, *machine.values()]) + "\n\n" + table
    print(text)
    if args.out:
        measured = {
            "seconds": {name: values.tolist() for name, values in timings.seconds.items()},
            "flops": {" ".join(key): count for key, count in flops.items()},
        }
        folder = write_results(args, text, machine, measured)
        plot(flops, timings.seconds, folder / "benchmark_scale.png", title=f"{title}\n{machine['device']}")
