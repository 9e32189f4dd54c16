"""python -m experiments.benchmark compile: from the start of a program to the end of its first step or forward pass.

Every start is a process of its own. A first start finds nothing compiled, a second one what the first has kept.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time

import numpy as np

from experiments.benchmark import vit
from experiments.benchmark.timing import Timed, machine, ratio_table, torch_version, write_report
from vit_jax import InputError
from vit_jax.cli import Parser, positive_int

IMPORTS = """
import time
start = time.perf_counter()
import jax, flax.nnx
between = time.perf_counter()
import vit_jax
print(between - start, time.perf_counter() - between)
"""
FIRST, SECOND = "first start", "second start"
CACHES = ("VIT_JAX_CACHE", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add what `benchmark compile` takes."""
    vit.add_setting_flags(parser)
    parser.add_argument("--rounds", type=positive_int, default=3)
    parser.add_argument("--out", help="folder for benchmark_compile.json, .md and .png")


def call_once(arguments: list[str]) -> None:
    """In a new process: the program named first, as the flags after it have it, called once."""
    name, *flags = arguments
    parser = Parser()
    vit.add_setting_flags(parser)
    setting = vit.setting_of(parser.parse_args(flags))
    vit.made(setting, name)()


def seconds_to_first(name: str, flags: list[str], cache: str) -> float:
    """Seconds from the start of a process to the end of the first call. Raises InputError where that fails."""
    code = "import sys; from experiments.benchmark.startup import call_once; call_once(sys.argv[1:]); print('done')"
    given = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    given |= dict.fromkeys(CACHES, cache)
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code, name, *flags], env=given, capture_output=True, text=True)
    if done.returncode or not done.stdout.endswith("done\n"):
        raise InputError(f"{name} did not start: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    return time.perf_counter() - start


def import_seconds() -> tuple[float, float]:
    """Seconds to import jax and flax.nnx in a new process, and vit_jax after them."""
    done = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=True)
    before, ours = done.stdout.split()
    return float(before), float(ours)


def _flags(args: argparse.Namespace) -> list[str]:
    height, width = vit.setting_of(args).config.image_size
    flags = ["--model", args.model, "--image-size", f"{height}x{width}", "--batch-size", str(args.batch_size)]
    flags += ["--dtype", args.dtype] + (["--train"] if args.train else [])
    return flags + (["--scan-layers"] if args.scan_layers else [])


def run(args: argparse.Namespace) -> int:
    """Measure, and print the table."""
    setting, flags = vit.setting_of(args), _flags(args)
    names = [vit.OURS]
    about = machine()
    if args.against:
        vit.peers_module()
        names += vit.peer_names(setting.config, compiled=args.torch_compile)
        about["torch"] = torch_version()
    keeping = [name for name in names if name in (vit.OURS, vit.PEERS[1])]
    found: dict[str, list[float]] = {}
    imports = []
    for number in range(args.rounds):
        imports.append(import_seconds())
        for name in names:
            with tempfile.TemporaryDirectory() as cache:
                for start in (FIRST, SECOND) if name in keeping else (FIRST,):
                    found.setdefault(f"{name}, {start}", []).append(seconds_to_first(name, flags, cache))
        print(f"round {number + 1}/{args.rounds}", file=sys.stderr, flush=True)
    timed = Timed({}, {name: np.array(values) for name, values in found.items()})
    before, ours = np.median(imports, axis=0)
    what = f"{args.model} at {vit.told(setting)}"
    span = f"process start to the end of the first one, {args.rounds} rounds"
    text = "; ".join([f"{what}: {span}", *about.values()]) + "\n\n" + ratio_table(timed, "ours, first start")
    text += f"\n\nimport jax and flax.nnx: {before:.2f} s; vit_jax after them: {ours:.2f} s"
    print(text)
    if args.out:
        stored = about | {"arguments": vars(args), "imports": imports}
        name = "\n".join([what, span, about["device"]])
        write_report(args.out, "benchmark_compile", text, stored, timed, times="ours, first start", title=name)
    return 0
