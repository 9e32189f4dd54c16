"""Captioned pictures to batches: decoded, drawn on and padded in threads. A function of (seed, epoch, index) alone.

Letters: B batch, H x W padded picture, T tokens.
"""

import itertools
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import grain
import numpy as np

from caption.data.augment import CaptionAugment, augment_image
from caption.data.captions import CaptionDataset
from caption.data.scenes import SPLITS, make_scene
from caption.preprocess import CaptionPreprocess, ViTPreprocess, pad_batch
from caption.tokenizer import Tokenizer
from vit_jax.data.loader import THREADS, batches_per_epoch
from vit_jax.data.process_shard import ProcessShard, RowRange, all_rows


class CaptionBatch(NamedTuple):
    """images: [B, H, W, 3], normalised, 0 outside mask [B, H, W]; tokens: int32 [B, T]; weights: float32 [B]."""

    images: np.ndarray
    mask: np.ndarray
    tokens: np.ndarray
    weights: np.ndarray


class Example(NamedTuple):
    """A picture [h, w, 3] as the model takes it, and a caption's tokens [T]."""

    image: np.ndarray
    tokens: np.ndarray


@runtime_checkable
class ExampleSource(Protocol):
    """What a split gives to an epoch."""

    def __len__(self) -> int:
        """How many examples an epoch has."""
        ...

    def at(self, epoch: int, index: int) -> Example:
        """One example of an epoch; -1 is validation, in which nothing is drawn."""
        ...


@dataclass(frozen=True)
class SceneExamples:
    """Made scenes, new ones in every epoch."""

    split: str
    count: int
    seed: int
    tokenizer: Tokenizer
    preprocess: CaptionPreprocess | ViTPreprocess
    length: int

    def __len__(self) -> int:
        return self.count

    def at(self, epoch: int, index: int) -> Example:
        """The scene of that number in the epoch's stretch of the endless row."""
        assert self.split in SPLITS
        made = make_scene(self.seed, max(epoch, 0) * self.count + index, split=self.split, size=self.preprocess.size[0])
        tokens = self.tokenizer.encode_batch([made.caption], self.length).tokens[0]
        return Example(self.preprocess.normalize(made.image), tokens)


class CaptionedImages:
    """Pictures of a CaptionSet, one example for each caption; small ones are kept decoded within a budget of bytes."""

    def __init__(
        self,
        captions: CaptionDataset,
        tokenizer: Tokenizer,
        preprocess: CaptionPreprocess | ViTPreprocess,
        augment: CaptionAugment,
        *,
        length: int,
        seed: int,
        budget: int,
    ):
        self.captions, self.preprocess, self.augment, self.seed = captions, preprocess, augment, seed
        self.pairs = captions.pairs()
        texts = [text for _, text in self.pairs]
        self.tokens = tokenizer.encode_batch(texts, length, truncate=True).tokens
        self._kept: dict[int, np.ndarray] = {}
        self._left, self._lock = budget, threading.Lock()

    def __len__(self) -> int:
        return len(self.pairs)

    def at(self, epoch: int, index: int) -> Example:
        """A caption and its picture, drawn on by (seed, epoch, index); as it is in validation."""
        picture = self.pairs[index][0]
        if epoch < 0:
            return Example(self.picture(picture), self.tokens[index])
        rng = np.random.default_rng([self.seed, epoch, index])
        drawn = augment_image(self.captions.open(picture), self.preprocess, self.augment, rng)
        return Example(drawn, self.tokens[index])

    def picture(self, index: int) -> np.ndarray:
        """A picture as the model takes it, kept where the budget allows."""
        image = self._kept.get(index)
        if image is None:
            image = self.preprocess(self.captions.open(index))
            with self._lock:
                if index not in self._kept and image.nbytes <= self._left:
                    self._left -= image.nbytes
                    self._kept[index] = image
        return image


class _Epoch:
    """One epoch of a split as a random-access source."""

    def __init__(self, examples: ExampleSource, epoch: int):
        self.examples, self.epoch = examples, epoch

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> tuple[Example]:
        return (self.examples.at(self.epoch, int(index)),)


def caption_batches(
    examples: ExampleSource,
    batch_size: int,
    size: tuple[int, int],
    *,
    seed: int = 0,
    epoch: int = -1,
    start: int = 0,
    rows: RowRange | None = None,
) -> Iterator[CaptionBatch]:
    """The batches of an epoch from batch `start` on, shuffled by (seed, epoch); in order where the epoch is -1.

    Every example once; the last batch is filled up with rows of weight 0. size: (H, W) of every batch.
    rows: those of every batch that this process reads, all of them where it is alone.
    """
    rows = rows or all_rows(batch_size)
    order = grain.MapDataset.source(_Epoch(examples, epoch))
    if epoch >= 0:
        order = order.shuffle(seed=int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0]))
    source = grain.MapDataset.source(ProcessShard(order, batch_size, start, rows))
    share = rows.end - rows.first
    options = grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=max(2 * share, THREADS))
    found = iter(source.to_iter_dataset(options)) if len(source) else iter(())
    for _ in range(start, batches_per_epoch(len(examples), batch_size)):
        yield _batch([example for (example,) in itertools.islice(found, share)], examples, share, size)


def _batch(found: list[Example], examples: ExampleSource, count: int, size: tuple[int, int]) -> CaptionBatch:
    weights = np.zeros(count, np.float32)
    weights[: len(found)] = 1
    filling = [found[0] if found else examples.at(-1, 0)] * (count - len(found))
    rows = found + filling
    images, mask = pad_batch([row.image for row in rows], size)
    return CaptionBatch(images, mask, np.stack([row.tokens for row in rows]), weights)
