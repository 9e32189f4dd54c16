"""python -m experiments.benchmark compile: from the start of a program to the end of its first step or forward pass.

Every start is a process of its own. A first start has an empty compilation cache; a second one has the first one's.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time

import numpy as np

from experiments.benchmark.machine import describe_machine
from experiments.benchmark.peer_programs import COMPILED, add_peer_flags, parse_peers
from experiments.benchmark.programs import OURS, build_program
from experiments.benchmark.results import format_ratios, write_timings
from experiments.benchmark.timing import Timings
from experiments.benchmark.workload import add_workload_flags, parse_workload
from vit_jax import InputError
from vit_jax.cli import Parser, positive_int
from vit_jax.notes import note

IMPORTS = """
import time, vit_jax_command
start = time.perf_counter()
import jax, flax.nnx
between = time.perf_counter()
import vit_jax
print(between - start, time.perf_counter() - between)
"""
FIRST_CALL = """
import sys, vit_jax_command
from experiments.benchmark.startup import call_once
call_once(sys.argv[1:])
print("done")
"""
FIRST, SECOND = "first start", "second start"
CACHING = (OURS, COMPILED)  # programs that keep what they compile
CACHES = ("VIT_JAX_CACHE", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `benchmark compile`."""
    add_workload_flags(parser)
    add_peer_flags(parser)
    parser.add_argument("--rounds", type=positive_int, default=3)
    parser.add_argument("--out", help="folder for benchmark_compile.json, .md and .png")


def call_once(arguments: list[str]) -> None:
    """In a new process: build the program named first, for the workload of the flags after it, and call it once."""
    name, *flags = arguments
    parser = Parser()
    add_workload_flags(parser)
    build_program(parse_workload(parser.parse_args(flags)), name)()


def time_first_call(name: str, flags: list[str], cache: str) -> float:
    """Return the seconds from the start of a process to the end of its first call. Raises InputError on failure."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    environment |= dict.fromkeys(CACHES, cache)
    start = time.perf_counter()
    completed = subprocess.run(
        [sys.executable, "-c", FIRST_CALL, name, *flags], env=environment, capture_output=True, text=True
    )
    if completed.returncode or not completed.stdout.endswith("done\n"):
        raise InputError(f"{name} did not start: {(completed.stderr.strip().splitlines() or ['no message'])[-1]}")
    return time.perf_counter() - start


def time_imports() -> tuple[float, float]:
    """Return the seconds to import jax and flax.nnx in a new process, and then vit_jax."""
    completed = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=True)
    before, ours = completed.stdout.split()
    return float(before), float(ours)


def _workload_flags(args: argparse.Namespace) -> list[str]:
    height, width = parse_workload(args).config.image_size
    flags = ["--model", args.model, "--image-size", f"{height}x{width}", "--batch-size", str(args.batch_size)]
    flags += ["--dtype", args.dtype] + (["--train"] if args.train else [])
    return flags + (["--scan-layers"] if args.scan_layers else [])


def run_benchmark(args: argparse.Namespace) -> None:
    """Measure, and print the table."""
    workload = parse_workload(args)
    names = [OURS, *parse_peers(args, workload)]
    machine = describe_machine(args.against)
    seconds, imports = _measure_rounds(names, _workload_flags(args), args.rounds)
    timings = Timings({}, {name: np.array(values) for name, values in seconds.items()})
    before, ours = np.median(imports, axis=0)
    what = f"{args.model} at {workload}"
    span = f"process start to the end of the first one, {args.rounds} rounds"
    times = f"ours, {FIRST}"
    text = "; ".join([f"{what}: {span}", *machine.values()]) + "\n\n" + format_ratios(timings, times)
    text += f"\n\nimport jax and flax.nnx: {before:.2f} s; vit_jax after them: {ours:.2f} s"
    print(text)
    if args.out:
        title = "\n".join([what, span, machine["device"]])
        write_timings(args, text, machine, timings, times=times, title=title, measured={"imports": imports})


def _measure_rounds(
    names: list[str], flags: list[str], rounds: int
) -> tuple[dict[str, list[float]], list[tuple[float, float]]]:
    """Return the seconds of each program's starts, and of the imports, in every round."""
    seconds: dict[str, list[float]] = {}
    imports = []
    for number in range(rounds):
        imports.append(time_imports())
        for name in names:
            with tempfile.TemporaryDirectory() as cache:
                for start in (FIRST, SECOND) if name in CACHING else (FIRST,):
                    seconds.setdefault(f"{name}, {start}", []).append(time_first_call(name, flags, cache))
        note(f"round {number + 1}/{rounds}", file=sys.stderr)
    return seconds, imports
