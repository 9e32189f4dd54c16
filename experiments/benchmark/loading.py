"""python -m experiments.benchmark input: pictures from disk to normalised batches, beside PyTorch's DataLoader.

Each program is a process of its own that is held to so many cores. Nothing is kept from one pass to the next but what
the system keeps of files. Both must give the same pixels.
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

from experiments.benchmark import vit
from experiments.benchmark.children import Child
from experiments.benchmark.timing import alternating, machine, ratio_table, torch_version, write_report
from vit_jax import InputError, Preprocess
from vit_jax.cli import image_size, positive_int
from vit_jax.data.dataset import Split
from vit_jax.data.folder import image_files
from vit_jax.data.loader import CachedImages, ordered_batches

MADE = 128  # pictures where no folder is given
MADE_SIZE = (375, 500)  # height, width: the usual photograph of the usual data sets
SAME = 1e-5  # of the mean over all numbers


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add what `benchmark input` takes."""
    parser.add_argument("--data", metavar="FOLDER", help=f"of pictures (default: {MADE} JPEGs made for it)")
    parser.add_argument("--image-size", type=image_size, default=(384, 384), metavar="N|HxW")
    parser.add_argument("--batch-size", type=positive_int, default=16)
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    parser.add_argument("--cores", type=positive_int, nargs="+", default=sorted({1, max(1, len(cores))}))
    parser.add_argument("--against", choices=("torch",), help="measure DataLoader beside it (needs torch)")
    parser.add_argument("--rounds", type=positive_int, default=5)
    parser.add_argument("--out", help="folder for benchmark_input.json, .md and .png")


def made_pictures(folder: Path, count: int) -> None:
    """JPEGs with the detail of a photograph: noise of every scale, amplitudes falling with the frequency."""
    rng = np.random.default_rng(0)
    height, width = MADE_SIZE
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    for number in range(count):
        noise = np.fft.rfft2(rng.normal(size=(3, height, width))) / np.maximum(frequency, 1 / width)
        pixels = np.fft.irfft2(noise, (height, width)).transpose(1, 2, 0)
        pixels = 128 + 50 * (pixels - pixels.mean()) / pixels.std()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"made_{number:04}.jpg", quality=90)


def own_epoch(files: Sequence[str], preprocess: Preprocess, batch_size: int) -> Callable[[], float]:
    """One pass over all files, to batches on the device; answers the mean of all numbers, to compare."""
    split = Split.from_files(files)
    pictures = CachedImages(split, preprocess, budget=0)

    @jax.jit
    def total(images: jax.Array, weights: jax.Array) -> jax.Array:
        normalised = preprocess.normalize(images.astype(jnp.float32) / 255)
        return (normalised.mean(axis=(1, 2, 3)) * weights).sum()

    def run() -> float:
        found = [total(batch.images, batch.weights) for batch in ordered_batches(pictures, batch_size)]
        return float(sum(float(part) for part in found)) / len(files)

    return run


def torch_epoch(files: Sequence[str], preprocess: Preprocess, batch_size: int, workers: int) -> Callable[[], float]:
    """The same by a DataLoader with this number of worker processes."""
    from experiments.benchmark.peers import loader

    return loader.epoch(files, preprocess, batch_size, workers)


def run(args: argparse.Namespace) -> int:
    """Measure, and print a table for each number of cores."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if max(args.cores) > len(cores):
        raise InputError(f"--cores {max(args.cores)}: this machine lets a program have {len(cores)}")
    about = machine()
    if args.against:
        vit.peers_module()
        about["torch"] = torch_version()
    preprocess = Preprocess(args.image_size)
    with ExitStack() as stack:
        folder = Path(args.data or stack.enter_context(tempfile.TemporaryDirectory()))
        if not args.data:
            made_pictures(folder, MADE)
        files = [str(path) for path in image_files(folder)]
        programs: dict[str, Callable[[], Any]] = {}
        for count in args.cores:
            held = dict(cores=cores[:count])
            name, given = f"{count} core{'s' * (count > 1)}", (files, preprocess, args.batch_size)
            programs[f"here, {name}"] = stack.enter_context(Child(own_epoch, *given, **held))
            if args.against:
                for workers in (0, count):
                    peer = stack.enter_context(Child(torch_epoch, *given, workers, **held))
                    programs[f"DataLoader, {name}, {workers} workers"] = peer
        means = {name: program() for name, program in programs.items()}
        first = next(iter(means.values()))
        for name, mean in means.items():
            if not abs(mean - first) < SAME:
                raise InputError(f"{name} gives other pixels: their mean is {mean:.6f}, not {first:.6f}")
        timed = alternating(programs, args.rounds)
    height, width = args.image_size
    where = (args.data and Path(args.data).name) or f"made JPEGs of {MADE_SIZE[1]}x{MADE_SIZE[0]}"
    title = f"{len(files)} pictures ({where}) to {height}x{width}, batches of {args.batch_size}, {args.rounds} rounds"
    times = next(iter(programs))
    text = "; ".join([title, *about.values()]) + "\n\n" + ratio_table(timed, times, images=len(files))
    print(text)
    if args.out:
        stored, name = about | {"arguments": vars(args)}, f"{title}\n{about['device']}"
        write_report(args.out, "benchmark_input", text, stored, timed, times=times, title=name)
    return 0
