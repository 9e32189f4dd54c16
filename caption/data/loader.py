"""Captioned images to batches: decoded, augmented and padded in threads, as a function of (seed, epoch, index) alone.

Letters: B batch, H x W padded image, h x w an image's own size, T tokens.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32, Int32
from PIL import Image

from caption.data.augment import CaptionAugment, augment_image
from caption.data.captions import CaptionDataset
from caption.data.scenes import SPLITS, make_scene
from caption.preprocess import CaptionPreprocess, ViTPreprocess, pad_batch
from caption.tokenizer import Tokenizer
from vit_jax.data.batches import pad_batch_to, read_batches, shuffle
from vit_jax.data.cache import ImageCache
from vit_jax.data.process_shard import RowRange

VALIDATION = -1  # in place of an epoch's number: examples in order, without augmentation


class CaptionBatch(NamedTuple):
    """Padded images and captions. images: normalised, 0 outside mask; weights: 0 for rows that only fill the batch."""

    images: Float32[np.ndarray, "b H W 3"]
    mask: Bool[np.ndarray, "b H W"]
    tokens: Int32[np.ndarray, "b T"]
    weights: Float32[np.ndarray, " b"]


class Example(NamedTuple):
    """An image as the model's input, and the tokens of a caption."""

    image: Float32[np.ndarray, "h w 3"]
    tokens: Int32[np.ndarray, " T"]


@runtime_checkable
class ExampleSource(Protocol):
    """The examples of a split, which may differ from epoch to epoch."""

    def __len__(self) -> int:
        """Return the number of examples in an epoch."""
        ...

    def at(self, epoch: int, index: int) -> Example:
        """Return one example of an epoch, or of VALIDATION."""
        ...


@dataclass(frozen=True)
class SceneExamples:
    """Synthetic scenes, new ones in every epoch."""

    split: str
    count: int
    seed: int
    tokenizer: Tokenizer
    preprocess: CaptionPreprocess | ViTPreprocess
    length: int

    def __len__(self) -> int:
        return self.count

    def at(self, epoch: int, index: int) -> Example:
        """Return scene number epoch * count + index of the seed's sequence; VALIDATION is epoch 0."""
        assert self.split in SPLITS
        number = max(epoch, 0) * self.count + index
        scene = make_scene(self.seed, number, split=self.split, size=self.preprocess.size[0])
        tokens = self.tokenizer.encode_batch([scene.caption], self.length).tokens[0]
        return Example(self.preprocess.normalize(scene.image), tokens)


class CaptionedImages:
    """The images of a CaptionDataset, one example per caption.

    budget: bytes of preprocessed images to keep in memory. Augmented images differ in every epoch and are not kept.
    """

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
        self.cache = ImageCache(budget)

    def __len__(self) -> int:
        return len(self.pairs)

    def at(self, epoch: int, index: int) -> Example:
        """Return a caption and its image, augmented by random numbers of (seed, epoch, index) unless for VALIDATION."""
        image_index = self.pairs[index][0]
        if epoch == VALIDATION:
            return Example(self.picture(image_index), self.tokens[index])
        rng = np.random.default_rng([self.seed, epoch, index])
        image = augment_image(self._open(image_index), self.preprocess, self.augment, rng)
        return Example(image, self.tokens[index])

    def _open(self, index: int) -> Image.Image:
        settings = self.preprocess
        return self.captions.open(index, background=settings.background, max_value=settings.max_value)

    def picture(self, index: int) -> Float32[np.ndarray, "h w 3"]:
        """Return an image as the model's input, without augmentation."""
        return self.cache.get(index, lambda: self.preprocess(self._open(index)))


class _Epoch:
    """One epoch of a split as a random-access source."""

    def __init__(self, examples: ExampleSource, epoch: int):
        self.examples, self.epoch = examples, epoch

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Example:
        return self.examples.at(self.epoch, int(index))


def caption_batches(
    examples: ExampleSource,
    batch_size: int,
    size: tuple[int, int],
    *,
    seed: int = 0,
    epoch: int = VALIDATION,
    start: int = 0,
    rows: RowRange | None = None,
) -> Iterator[CaptionBatch]:
    """Yield the batches of an epoch, shuffled by (seed, epoch), or those of VALIDATION in order.

    size: (H, W) of every batch. See `read_batches` for start and rows.
    """
    source = _Epoch(examples, epoch)
    order = source if epoch == VALIDATION else shuffle(source, seed=seed, epoch=epoch)
    collate = partial(_collate, examples=examples, size=size)
    return read_batches(order, batch_size, collate, start=start, rows=rows)


def _collate(batch: Sequence[Example], count: int, *, examples: ExampleSource, size: tuple[int, int]) -> CaptionBatch:
    filler = batch[0] if batch else examples.at(VALIDATION, 0)  # an image, since attention over an empty one is 0 / 0
    rows, weights = pad_batch_to(count, batch, filler)
    images, mask = pad_batch([row.image for row in rows], size)
    return CaptionBatch(images, mask, np.stack([row.tokens for row in rows]), weights)
