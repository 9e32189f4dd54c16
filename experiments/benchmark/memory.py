"""python -m experiments.benchmark memory: the most memory a process holds for a model and its work, beside PyTorch's.

Every program has a process of its own in every round. Counted is what it holds beyond its imports: parameters,
optimiser, activations; on a CPU of the process, by the system's own count, on a GPU of the device, by the framework's.
"""

import argparse
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from experiments.benchmark import vit
from experiments.benchmark.children import Child, forget_peak, peak, resident
from experiments.benchmark.timing import machine, torch_version, write_measured
from vit_jax.cli import positive_int

CALLS = 3


class Held(NamedTuple):
    """Bytes at most: in the first call, compiling and all, and in later ones."""

    first: int
    later: int


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add what `benchmark memory` takes."""
    vit.add_setting_flags(parser)
    parser.add_argument("--rounds", type=positive_int, default=3)
    parser.add_argument("--out", help="folder for benchmark_memory.json and .md")


def watched(setting: vit.Setting, name: str) -> Callable[[], Held]:
    """In a new process: a program by name, and what it holds while it is called."""
    if name != vit.OURS:
        vit.peers_module()  # counted among the imports
    before = resident()
    program = vit.made(setting, name)

    def run() -> Held:
        first = _most(program, 1)
        return Held(first - before, _most(program, CALLS) - before)

    return run


def _most(program: Callable[[], object], calls: int) -> int:
    if jax.default_backend() == "gpu":
        return _most_on_device(program, calls)
    resident()
    forget_peak()
    for _ in range(calls):
        jax.block_until_ready(program())
    return peak()


def _most_on_device(program: Callable[[], object], calls: int) -> int:
    """Both frameworks' own counts: a process uses one of them."""
    import torch

    torch.cuda.reset_peak_memory_stats()
    for _ in range(calls):
        jax.block_until_ready(program())
    ours = jax.devices()[0].memory_stats() or {}
    return max(int(ours.get("peak_bytes_in_use", 0)), torch.cuda.max_memory_allocated()) + resident()


def run(args: argparse.Namespace) -> int:
    """Measure, and print the table."""
    setting = vit.setting_of(args)
    names = [vit.OURS]
    about = machine()
    if args.against:
        vit.peers_module()
        names += vit.peer_names(setting.config, compiled=args.torch_compile)
        about["torch"] = torch_version()
    found: dict[str, list[Held]] = {name: [] for name in names}
    for number in range(args.rounds):
        for name in names if number % 2 == 0 else names[::-1]:
            with Child(watched, setting, name) as child:
                found[name].append(child())
    lines = ["| program | GB | least | greatest | GB in its first call |", "|---|---|---|---|---|"]
    for name, held in found.items():
        later, first = np.array(held).T[::-1] / 1e9
        lines.append(
            f"| {name} | {np.median(later):.2f} | {later.min():.2f} | {later.max():.2f} | {np.median(first):.2f} |"
        )
    title = f"{args.model} at {vit.told(setting)}, {args.rounds} processes each"
    text = "; ".join([title, *about.values()]) + "\n\n" + "\n".join(lines)
    print(text)
    if args.out:
        write_measured(args.out, "benchmark_memory", text, about | {"arguments": vars(args), "bytes": found})
    return 0
