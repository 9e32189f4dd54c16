"""Timing on a noisy machine: programs alternate, so that noise disturbs them alike and ratios within a round hold."""

import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from vit_jax.notes import note


class Timings(NamedTuple):
    """Seconds of each program: of its first call, with compilation, and of one call in every round."""

    first: dict[str, float]
    seconds: dict[str, np.ndarray]


def time_alternately(
    programs: dict[str, Callable[[], Any]], rounds: int, check: Callable[[dict[str, Any]], None] | None = None
) -> Timings:
    """Time every program once per round, after one first call each. check: receives the outputs of the first calls."""
    first: dict[str, float] = {}
    outputs: dict[str, Any] = {}
    for name, program in programs.items():
        start = time.perf_counter()
        outputs[name] = jax.block_until_ready(program())
        first[name] = time.perf_counter() - start
    if check is not None:
        check(outputs)
    del outputs
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for number in range(rounds):
        for name in alternate_order(list(programs), number):
            seconds[name].append(_time_call(programs[name]))
        note(f"round {number + 1}/{rounds}", file=sys.stderr)
    return Timings(first, {name: np.array(values) for name, values in seconds.items()})


def alternate_order(names: list[str], number: int) -> list[str]:
    """Return the order of programs in a round: reversed in every second one."""
    return names if number % 2 == 0 else names[::-1]


def _time_call(program: Callable[[], Any]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(program())
    return time.perf_counter() - start
