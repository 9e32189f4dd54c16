"""Measuring speed on a machine that is not quiet: programs take turns, ratios are taken within a round.

A noisy machine then disturbs them alike; a ratio's median and spread over the rounds are told.
"""

import json
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.common.plots import BLUE, VERMILION
from vit_jax.files import atomic_write
from vit_jax.plot import new_figure, save_figure


class Timed(NamedTuple):
    """Seconds of each program by name: its first call, compiling and all, and one in every round."""

    first: dict[str, float]
    seconds: dict[str, np.ndarray]


def alternating(
    programs: dict[str, Callable[[], Any]], rounds: int, check: Callable[[dict[str, Any]], None] | None = None
) -> Timed:
    """Time every program once a round, in turn, after one first call each, whose answers `check` is given."""
    first: dict[str, float] = {}
    answers: dict[str, Any] = {}
    for name, program in programs.items():
        start = time.perf_counter()
        answers[name] = jax.block_until_ready(program())
        first[name] = time.perf_counter() - start
    if check is not None:
        check(answers)
    del answers
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for number in range(rounds):
        names = list(programs) if number % 2 == 0 else list(programs)[::-1]
        for name in names:
            seconds[name].append(_seconds_of(programs[name]))
        print(f"round {number + 1}/{rounds}", file=sys.stderr, flush=True)
    return Timed(first, {name: np.array(values) for name, values in seconds.items()})


def _seconds_of(program: Callable[[], Any]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(program())
    return time.perf_counter() - start


def ratio_table(timed: Timed, times: str, *, images: int | None = None) -> str:
    """Markdown, a row for each program: median seconds, images a second where a call takes `images`, the ratio to the
    first program, which `times` names (median, least and greatest), and the seconds of the first call where known.
    """
    base = next(iter(timed.seconds.values()))
    rate = [] if images is None else ["images/s"]
    last = ["first call s"] if timed.first else []
    head = ["program", "median s", *rate, f"times {times}", "least", "greatest", *last]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name, values in timed.seconds.items():
        ratios = values / base
        made = [] if images is None else [f"{images / np.median(values):.2f}"]
        cells = [name, f"{np.median(values):.4f}", *made]
        cells += [f"{found:.2f}" for found in (np.median(ratios), ratios.min(), ratios.max())]
        cells += [f"{timed.first[name]:.2f}"] if timed.first else []
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def plot_ratios(seconds: dict[str, np.ndarray], path: Path, *, times: str, title: str) -> None:
    """A row for each program: every round's ratio to the first program, and their median."""
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


def machine() -> dict[str, str]:
    """What a figure must be read with: the device, its cores, and the versions."""
    import flax
    import jaxlib

    device = jax.devices()[0]
    versions = f"jax {jax.__version__}, jaxlib {jaxlib.__version__}, flax {flax.__version__}"
    kind = f"{processor() if device.platform == 'cpu' else device.device_kind}, {os.cpu_count()} cores"
    return {"device": f"{kind}, {platform.machine()}", "versions": f"Python {platform.python_version()}, {versions}"}


def torch_version() -> str:
    """The peer's version and threads."""
    import torch

    return f"torch {torch.__version__}, {torch.get_num_threads()} threads"


def processor() -> str:
    """The processor's own name, with the widest vectors it has: products go by those."""
    cpuinfo = Path("/proc/cpuinfo")
    told: dict[str, str] = {}
    for line in cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []:
        key, _, value = line.partition(":")
        told.setdefault(key.strip(), value.strip())
    flags = told.get("flags", "").split()
    vectors = next((name for name in ("amx_tile", "avx512f", "avx2") if name in flags), "")
    return " ".join([told.get("model name") or platform.processor() or "CPU", *([f"({vectors})"] if vectors else [])])


def write_measured(folder: str, name: str, text: str, stored: dict[str, Any]) -> Path:
    """Write `name`.md, the table, and `name`.json, all that was measured, each whole or not at all; the folder."""
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    with atomic_write(place / f"{name}.json") as beside:
        beside.write_text(json.dumps(stored) + "\n")
    with atomic_write(place / f"{name}.md") as beside:
        beside.write_text(text + "\n")
    return place


def write_report(
    folder: str, name: str, text: str, stored: dict[str, Any], timed: Timed, *, times: str, title: str
) -> None:
    """write_measured, with every time, and the figure `name`.png beside them."""
    measured = {"seconds": {key: values.tolist() for key, values in timed.seconds.items()}, "first": timed.first}
    place = write_measured(folder, name, text, stored | measured)
    plot_ratios(timed.seconds, place / f"{name}.png", times=times, title=title)
