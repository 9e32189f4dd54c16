"""python -m experiments.benchmark input: images from disk to normalised batches, next to PyTorch's DataLoader.

Each program is a process of its own, restricted to a number of cores. Only the system's file cache lasts from one pass
to the next. Both must give the same pixels.
"""

import argparse
import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from experiments.benchmark.machine import describe_machine
from experiments.benchmark.peer_programs import import_family
from experiments.benchmark.results import format_ratios, write_timings
from experiments.benchmark.timing import time_alternately
from experiments.benchmark.worker import Worker
from experiments.common.flags import add_batch_size_flag
from vit_jax import ImagePreprocess, InputError
from vit_jax.cli import image_size, positive_int
from vit_jax.data.dataset import Split
from vit_jax.data.folder import image_files
from vit_jax.data.loader import CachedImages, ordered_batches

NUM_GENERATED = 128  # images to generate without --data
GENERATED_SIZE = (375, 500)  # height, width: a usual photograph of the common data sets
TOLERANCE = 1e-5  # of the mean over all values


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `benchmark input`."""
    parser.add_argument("--data", metavar="FOLDER", help=f"of images (default: {NUM_GENERATED} generated JPEGs)")
    parser.add_argument("--image-size", type=image_size, default=(384, 384), metavar="N|HxW")
    add_batch_size_flag(parser, 16)
    cores = available_cores()
    parser.add_argument("--cores", type=positive_int, nargs="+", default=sorted({1, max(1, len(cores))}))
    parser.add_argument("--against", choices=("torch",), help="measure DataLoader too (needs torch)")
    parser.add_argument("--rounds", type=positive_int, default=5)
    parser.add_argument("--out", help="folder for benchmark_input.json, .md and .png")


def available_cores() -> list[int]:
    """Return the cores that this process may use; empty if the system does not tell."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def generate_images(folder: Path, count: int) -> None:
    """Write JPEGs with the detail of a photograph: noise whose amplitude falls with the frequency."""
    rng = np.random.default_rng(0)
    height, width = GENERATED_SIZE
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    for number in range(count):
        noise = np.fft.rfft2(rng.normal(size=(3, height, width))) / np.maximum(frequency, 1 / width)
        pixels = np.fft.irfft2(noise, (height, width)).transpose(1, 2, 0)
        pixels = 128 + 50 * (pixels - pixels.mean()) / pixels.std()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"image_{number:04}.jpg", quality=90)


def build_epoch(files: Sequence[str], preprocess: ImagePreprocess, batch_size: int) -> Callable[[], float]:
    """Build a program that loads all files as batches on the device and returns the mean of all values, to compare."""
    split = Split.from_files(files)
    pictures = CachedImages(split, preprocess, budget=0)

    @jax.jit
    def total(images: jax.Array, weights: jax.Array) -> jax.Array:
        normalised = preprocess.normalize(images.astype(jnp.float32) / 255)
        return (normalised.mean(axis=(1, 2, 3)) * weights).sum()

    def run_epoch() -> float:
        parts = [total(batch.images, batch.weights) for batch in ordered_batches(pictures, batch_size)]
        return float(sum(float(part) for part in parts)) / len(files)

    return run_epoch


def build_torch_epoch(
    files: Sequence[str], preprocess: ImagePreprocess, batch_size: int, workers: int
) -> Callable[[], float]:
    """Build the same program on a DataLoader with this number of worker processes."""
    from experiments.benchmark.peers import loader

    return loader.build_epoch(files, preprocess, batch_size, workers)


def run_benchmark(args: argparse.Namespace) -> None:
    """Measure, and print a row for each number of cores."""
    cores = available_cores()
    if max(args.cores) > len(cores):
        raise InputError(f"--cores {max(args.cores)}: this machine lets a program have {len(cores)}")
    against = (args.against,) if args.against else ()
    for family in against:
        import_family(family)
    machine = describe_machine(against)
    with ExitStack() as stack:
        folder = Path(args.data or stack.enter_context(tempfile.TemporaryDirectory()))
        if not args.data:
            generate_images(folder, NUM_GENERATED)
        files = [str(path) for path in image_files(folder)]
        programs = _start_workers(args, files, cores, stack)
        _check_pixels(programs)
        timings = time_alternately(programs, args.rounds)
    height, width = args.image_size
    source = (args.data and Path(args.data).name) or f"generated JPEGs of {GENERATED_SIZE[1]}x{GENERATED_SIZE[0]}"
    title = f"{len(files)} pictures ({source}) to {height}x{width}, batches of {args.batch_size}, {args.rounds} rounds"
    times = next(iter(programs))
    text = "; ".join([title, *machine.values()]) + "\n\n" + format_ratios(timings, times, images=len(files))
    print(text)
    if args.out:
        write_timings(args, text, machine, timings, times=times, title=f"{title}\n{machine['device']}")


def _start_workers(
    args: argparse.Namespace, files: list[str], cores: list[int], stack: ExitStack
) -> dict[str, Callable[[], Any]]:
    """Start a worker per number of cores, and per number of DataLoader workers with --against."""
    programs: dict[str, Callable[[], Any]] = {}
    shared = (files, ImagePreprocess(args.image_size), args.batch_size)
    for count in args.cores:
        name = f"{count} core{'s' * (count > 1)}"
        programs[f"here, {name}"] = stack.enter_context(Worker(build_epoch, *shared, cores=cores[:count]))
        for workers in (0, count) if args.against else ():
            peer = stack.enter_context(Worker(build_torch_epoch, *shared, workers, cores=cores[:count]))
            programs[f"DataLoader, {name}, {workers} workers"] = peer
    return programs


def _check_pixels(programs: dict[str, Callable[[], Any]]) -> None:
    """Raise InputError when the programs do not give the same pixels."""
    means = {name: program() for name, program in programs.items()}
    first = next(iter(means.values()))
    for name, mean in means.items():
        if not abs(mean - first) < TOLERANCE:
            raise InputError(f"{name} gives other pixels: their mean is {mean:.6f}, not {first:.6f}")
