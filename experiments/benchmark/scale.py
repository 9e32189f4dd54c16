"""python -m experiments.benchmark scale: how time grows with image size, batch and depth, beside the operations.

One of the three is varied at a time, from the named model; all settings take turns.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from experiments.benchmark import vit
from experiments.benchmark.timing import alternating, machine, write_measured
from experiments.common.plots import BLUE, GREEN, VERMILION
from vit_jax.cli import image_size, positive_int
from vit_jax.plot import new_figure, save_figure

AXES = {"image size": BLUE, "batch": VERMILION, "depth": GREEN}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add what `benchmark scale` takes."""
    parser.add_argument("--model", default="B_16_imagenet1k", help="a named architecture (B_16_imagenet1k)")
    parser.add_argument("--image-size", type=image_size, metavar="N|HxW", help="of what is not varied (its own)")
    parser.add_argument("--image-sizes", type=image_size, nargs="+", default=[(n, n) for n in (96, 192, 384, 576)])
    parser.add_argument("--batch-sizes", type=positive_int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--depths", type=positive_int, nargs="+", default=[3, 6, 12, 24])
    parser.add_argument("--train", action="store_true", help="a step of AdamW in place of the forward pass")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="to compute in")
    parser.add_argument("--rounds", type=positive_int, default=5)
    parser.add_argument("--out", help="folder for benchmark_scale.json, .md and .png")


def settings(args: argparse.Namespace) -> dict[tuple[str, str], vit.Setting]:
    """What is measured, by what is varied and to which value. Raises InputError for an unknown model or size."""
    config = replace(vit.named(args.model, args.image_size), dropout=0.0, attention_dropout=0.0)
    plain = vit.Setting(config, 1, args.train, False, args.dtype)
    sizes = {("image size", f"{h}x{w}"): replace(plain, config=config.resized((h, w))) for h, w in args.image_sizes}
    batches = {("batch", str(count)): replace(plain, batch_size=count) for count in args.batch_sizes}
    depths = {("depth", str(count)): replace(plain, config=replace(config, depth=count)) for count in args.depths}
    return sizes | batches | depths


def plot(flops: dict[tuple[str, str], float], seconds: dict[str, np.ndarray], path: Path, *, title: str) -> None:
    """Median seconds over operations, both by logarithm, a line for each thing varied; dashed, even growth."""
    figure = new_figure(6.0, 4.0)
    axes = figure.subplots()
    for axis, colour in AXES.items():
        chosen = [key for key in flops if key[0] == axis]
        x = [flops[key] / 1e9 for key in chosen]
        y = [np.median(seconds[" ".join(key)]) for key in chosen]
        axes.plot(x, y, "o-", color=colour, markersize=4, label=f"{axis}: {', '.join(value for _, value in chosen)}")
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


def run(args: argparse.Namespace) -> int:
    """Measure, and print the table."""
    chosen = settings(args)
    programs: dict[str, Any] = {
        " ".join(key): vit.own(setting, vit.made_model(setting.config)) for key, setting in chosen.items()
    }
    timed = alternating(programs | {vit.MATRICES: vit.matrices(args.dtype)}, args.rounds)
    rate = 2 * vit.PRODUCT**3 / timed.seconds[vit.MATRICES]
    flops = {key: vit.flops_of(setting) for key, setting in chosen.items()}
    lines = ["| varied | to | GFLOP | median s | GFLOP/s | of the matrix rate |", "|---" * 6 + "|"]
    for (axis, value), count in flops.items():
        seconds = timed.seconds[f"{axis} {value}"]
        cells = [axis, value, f"{count / 1e9:,.1f}", f"{np.median(seconds):.4f}"]
        cells += [f"{count / np.median(seconds) / 1e9:,.0f}", f"{np.median(count / seconds / rate):.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    about, plain = machine(), next(setting for (axis, _), setting in chosen.items() if axis == "batch")
    what = vit.told(replace(plain, batch_size=1))
    title = f"{args.model}, from {what}, {args.rounds} rounds"
    text = "; ".join([title, *about.values()]) + "\n\n" + "\n".join(lines)
    print(text)
    if args.out:
        measured = {name: values.tolist() for name, values in timed.seconds.items()}
        stored = about | {
            "arguments": vars(args),
            "seconds": measured,
            "flops": {" ".join(k): v for k, v in flops.items()},
        }
        place = write_measured(args.out, "benchmark_scale", text, stored)
        plot(flops, timed.seconds, place / "benchmark_scale.png", title=f"{title}\n{about['device']}")
    return 0
