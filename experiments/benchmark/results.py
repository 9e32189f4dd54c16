"""Results of a benchmark: the Markdown table of ratios, their figure, and the files that keep both."""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from experiments.benchmark.timing import Timings
from experiments.common.plots import BLUE, VERMILION
from vit_jax.files import atomic_write
from vit_jax.plot import new_figure, save_figure


def format_ratios(timings: Timings, times: str, *, images: int | None = None) -> str:
    """Return a Markdown table with a row per program: median seconds and the ratio to the first program.

    times: what the first program is called in the header.
    images: per call, for a column of images per second.
    """
    base = next(iter(timings.seconds.values()))
    rate = [] if images is None else ["images/s"]
    last = ["first call s"] if timings.first else []
    header = ["program", "median s", *rate, f"times {times}", "min", "max", *last]
    rows = []
    for name, values in timings.seconds.items():
        ratios = values / base
        cells = [name, f"{np.median(values):.4f}"]
        cells += [] if images is None else [f"{images / np.median(values):.2f}"]
        cells += [f"{ratio:.2f}" for ratio in (np.median(ratios), ratios.min(), ratios.max())]
        cells += [f"{timings.first[name]:.2f}"] if timings.first else []
        rows.append(cells)
    return format_table(header, rows)


def format_table(header: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [f"| {' | '.join(cells)} |" for cells in (header, *rows)]
    return "\n".join([lines[0], "|---" * len(header) + "|", *lines[1:]])


def plot_ratios(seconds: dict[str, np.ndarray], path: Path, *, times: str, title: str) -> None:
    """Plot a row per program: every round's ratio to the first program, and their median."""
    base = next(iter(seconds.values()))
    figure = new_figure(7.0, 1.4 + 0.35 * len(seconds))
    axes = figure.subplots()
    for row, values in enumerate(seconds.values()):
        ratios = values / base
        axes.plot(ratios, np.full(len(ratios), row), "o", color=BLUE, markersize=4, alpha=0.5)
        axes.plot([np.median(ratios)], [row], "|", color=VERMILION, markersize=16, markeredgewidth=2)
        axes.annotate(f"{np.median(ratios):.2f}", (np.median(ratios), row), (0, 9), textcoords="offset points",
                      ha="center", fontsize=8, color=VERMILION)  # fmt: skip
    axes.axvline(1, color="grey", linewidth=0.8)
    axes.set_yticks(range(len(seconds)), list(seconds), fontsize=8)
    axes.set_ylim(len(seconds) - 0.5, -0.7)
    axes.set_xlim(left=0)
    axes.set_xlabel(f"time, times {times}\n(less is faster; dots: rounds, bar: median)", fontsize=8)
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(axis="x", alpha=0.3)
    axes.set_title(title, fontsize=8, parse_math=False)
    save_figure(figure, path)


def write_results(args: argparse.Namespace, text: str, machine: dict[str, str], measured: dict[str, Any]) -> Path:
    """Write benchmark_NAME.md, the table, and benchmark_NAME.json, all measurements, to --out; return the folder.

    NAME is the benchmark that the flags chose.
    """
    folder = Path(args.out)
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / f"benchmark_{args.what}.json") as temporary:
        temporary.write_text(json.dumps(machine | {"arguments": vars(args)} | measured) + "\n")
    with atomic_write(folder / f"benchmark_{args.what}.md") as temporary:
        temporary.write_text(text + "\n")
    return folder


def write_timings(
    args: argparse.Namespace,
    text: str,
    machine: dict[str, str],
    timings: Timings,
    *,
    times: str,
    title: str,
    measured: dict[str, Any] | None = None,
) -> None:
    """Write results as write_results does, with every time, and the figure benchmark_NAME.png."""
    seconds = {name: values.tolist() for name, values in timings.seconds.items()}
    folder = write_results(args, text, machine, (measured or {}) | {"seconds": seconds, "first": timings.first})
    plot_ratios(timings.seconds, folder / f"benchmark_{args.what}.png", times=times, title=title)
