"""Measuring speed on a machine that is not quiet: programs take turns, ratios are taken within a round.

A noisy machine then disturbs them alike; a ratio's median and spread over the rounds are told.
"""

import json
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vit_jax.files import written_file


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


def ratio_table(seconds: dict[str, np.ndarray], times: str) -> str:
    """Markdown: median seconds; median, least and greatest ratio to the first program, which `times` names."""
    base = next(iter(seconds.values()))
    lines = [f"| program | median s | times {times} | least | greatest |", "|---|---|---|---|---|"]
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


def write_report(folder: str, name: str, text: str, stored: dict[str, Any], seconds: dict[str, np.ndarray]) -> None:
    """Write `name`.md and `name`.json, the latter with all seconds, into a folder, each whole or not at all."""
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    content = stored | {"seconds": {program: values.tolist() for program, values in seconds.items()}}
    with written_file(place / f"{name}.json") as beside:
        beside.write_text(json.dumps(content) + "\n")
    with written_file(place / f"{name}.md") as beside:
        beside.write_text(text + "\n")
