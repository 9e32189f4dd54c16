"""Splits to batches of 8-bit images: decoded in parallel by Grain, kept in memory within a budget.

The order of an epoch is a function of (seed, epoch) alone, so a run resumes at any batch exactly.
"""

import os
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import grain
import numpy as np

from vit_jax.data.dataset import Split
from vit_jax.data.decode import CorruptImageError
from vit_jax.data.process_shard import ProcessShard, RowRange, all_rows
from vit_jax.errors import InputError
from vit_jax.preprocess import Preprocess

THREADS = min(16, 2 * (os.cpu_count() or 1))  # Pillow decodes outside the interpreter's lock


class Batch(NamedTuple):
    """images uint8 [B, h, w, 3]; labels int32 [B]; weights float32 [B], 0 for rows that only fill the batch."""

    images: np.ndarray
    labels: np.ndarray
    weights: np.ndarray


class CachedImages:
    """A split's pictures at the model's size, decoded once where the budget allows: a random-access source.

    The memory held is at most `budget` bytes; what does not fit is decoded anew each time.
    """

    def __init__(self, split: Split, preprocess: Preprocess, *, budget: int):
        self.split = split
        self.preprocess = preprocess
        self._cache: dict[int, np.ndarray] = {}
        self._left = budget
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.int32]:
        """(uint8 [h, w, 3], label). Raises CorruptImageError naming the picture."""
        pixels = self._cache.get(index)
        if pixels is None:
            pixels = self.preprocess.resize(self.split.open(index))
            with self._lock:
                if index not in self._cache and pixels.nbytes <= self._left:
                    self._left -= pixels.nbytes
                    self._cache[index] = pixels
        return pixels, self.split.labels[index]

    def without_corrupt(self) -> tuple["CachedImages", list[str]]:
        """These pictures less the unreadable ones, and what was wrong with each of those; reads every picture.

        Raises InputError when a class loses all its pictures.
        """

        def problem(index: int) -> str:
            try:
                self[index]
            except CorruptImageError as error:
                return str(error)
            return ""

        problems: list[str] = []
        began = shown = time.monotonic()
        with ThreadPoolExecutor(THREADS) as pool:
            for count, text in enumerate(pool.map(problem, range(len(self))), start=1):
                problems.append(text)
                if (now := time.monotonic()) - shown > 10:
                    shown = now
                    print(f"checked {count}/{len(self)} images, {count / (now - began):.0f}/s", file=sys.stderr)
        good = [index for index, text in enumerate(problems) if not text]
        if len(good) == len(self):
            return self, []
        kept = self.split.take(good)
        lost = set(self.split.labels.tolist()) - set(kept.labels.tolist())
        if lost:
            raise InputError("every image of a class is unreadable, among them: " + next(t for t in problems if t))
        pictures = CachedImages(kept, self.preprocess, budget=0)
        pictures._left = self._left
        pictures._cache = {new: self._cache[old] for new, old in enumerate(good) if old in self._cache}
        return pictures, [text for text in problems if text]


def training_batches(
    pictures: CachedImages, batch_size: int, *, seed: int, epoch: int, start: int = 0, rows: RowRange | None = None
) -> Iterator[Batch]:
    """The batches of one epoch from batch `start` on, shuffled by (seed, epoch); the last may be short, filled up.

    Every picture comes once. rows: those of every batch that this process reads, all of them where it is alone.
    Raises CorruptImageError naming a picture that can't be read.
    """
    order = grain.MapDataset.source(pictures).shuffle(
        seed=int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])
    )
    yield from _batches(order, pictures.preprocess.size, batch_size, start, rows or all_rows(batch_size))


def ordered_batches(pictures: CachedImages, batch_size: int, *, rows: RowRange | None = None) -> Iterator[Batch]:
    """Every picture once, in order; the last batch is filled up with rows of weight 0."""
    yield from _batches(pictures, pictures.preprocess.size, batch_size, 0, rows or all_rows(batch_size))


def _batches(order: Any, size: tuple[int, int], batch_size: int, start: int, rows: RowRange) -> Iterator[Batch]:
    """As many batches as the order has, of these rows; what is missing of the last one is filled up."""
    source = grain.MapDataset.source(ProcessShard(order, batch_size, start, rows))
    share = rows.end - rows.first
    options = grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=max(2 * share, THREADS))
    found = iter(source.to_iter_dataset(options).batch(share, drop_remainder=False)) if len(source) else iter(())
    nothing = (np.zeros((0, *size, 3), np.uint8), np.zeros(0, np.int32))
    for _ in range(start, batches_per_epoch(len(order), batch_size)):
        images, labels = next(found, nothing)
        missing = share - len(labels)
        weights = np.ones(len(labels), np.float32)
        if missing:
            images = np.concatenate([images, np.zeros((missing, *images.shape[1:]), images.dtype)])
            labels = np.concatenate([labels, np.zeros(missing, labels.dtype)])
            weights = np.concatenate([weights, np.zeros(missing, np.float32)])
        yield Batch(images, labels.astype(np.int32), weights)


def batches_per_epoch(count: int, batch_size: int) -> int:
    """How many batches hold `count` pictures, the last one included."""
    return -(-count // batch_size)
