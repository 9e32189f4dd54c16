"""python -m experiments.benchmark memory: peak memory of a process for a model and its work, next to PyTorch's.

Every program gets a new process in every round. Imports are not counted, only parameters, optimizer state and
activations: on a CPU by the system's count for the process, on a GPU by the framework's count for the device.
"""

import argparse
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from experiments.benchmark.machine import describe_machine
from experiments.benchmark.peer_programs import FAMILY_OF, add_peer_flags, import_family, parse_peers
from experiments.benchmark.process_memory import peak_bytes, reset_peak, resident_bytes
from experiments.benchmark.programs import OURS, build_program
from experiments.benchmark.results import format_table, write_results
from experiments.benchmark.timing import alternate_order
from experiments.benchmark.worker import Worker
from experiments.benchmark.workload import Workload, add_workload_flags, parse_workload
from vit_jax.cli import positive_int

LATER_CALLS = 3


class PeakBytes(NamedTuple):
    """Peak bytes of the first call, with compilation, and of later calls."""

    first: int
    later: int


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `benchmark memory`."""
    add_workload_flags(parser)
    add_peer_flags(parser)
    parser.add_argument("--rounds", type=positive_int, default=3)
    parser.add_argument("--out", help="folder for benchmark_memory.json and .md")


def build_measurement(workload: Workload, name: str) -> Callable[[], PeakBytes]:
    """In a worker process: build a program by its name, and a function that measures its peak memory."""
    if name != OURS:
        import_family(FAMILY_OF[name])  # counted among the imports
    before = resident_bytes()
    program = build_program(workload, name)

    def measure() -> PeakBytes:
        first = _measure_peak(program, 1)
        return PeakBytes(first - before, _measure_peak(program, LATER_CALLS) - before)

    return measure


def _measure_peak(program: Callable[[], object], calls: int) -> int:
    if jax.default_backend() == "gpu":
        return _measure_device_peak(program, calls)
    resident_bytes()
    reset_peak()
    for _ in range(calls):
        jax.block_until_ready(program())
    return peak_bytes()


def _measure_device_peak(program: Callable[[], object], calls: int) -> int:
    """Measure by both frameworks' counts: a process uses only one of them."""
    import torch

    torch.cuda.reset_peak_memory_stats()
    for _ in range(calls):
        jax.block_until_ready(program())
    stats = jax.devices()[0].memory_stats() or {}
    return max(int(stats.get("peak_bytes_in_use", 0)), torch.cuda.max_memory_allocated()) + resident_bytes()


def run_benchmark(args: argparse.Namespace) -> None:
    """Measure, and print the table."""
    workload = parse_workload(args)
    names = [OURS, *parse_peers(args, workload)]
    machine = describe_machine(args.against)
    peaks: dict[str, list[PeakBytes]] = {name: [] for name in names}
    for number in range(args.rounds):
        for name in alternate_order(names, number):
            with Worker(build_measurement, workload, name) as worker:
                peaks[name].append(worker())
    rows = []
    for name, values in peaks.items():
        first, later = np.array(values).T / 1e9
        rows.append(
            [name, *(f"{value:.2f}" for value in (np.median(later), later.min(), later.max(), np.median(first)))]
        )
    title = f"{args.model} at {workload}, {args.rounds} processes each"
    table = format_table(["program", "GB", "min", "max", "GB in its first call"], rows)
    text = "; ".join([title, *machine.values()]) + "\n\n" + table
    print(text)
    if args.out:
        write_results(args, text, machine, {"bytes": peaks})
