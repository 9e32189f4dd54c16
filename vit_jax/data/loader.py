"""Labelled images as batches of 8-bit arrays at the model's size, kept in memory within a budget."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int32, UInt8

from vit_jax.channels import Picture, to_channels
from vit_jax.data.batches import pad_batch_to, read_batches, shuffle
from vit_jax.data.cache import ImageCache
from vit_jax.data.dataset import Split
from vit_jax.data.decode import CorruptImageError
from vit_jax.data.process_shard import RowRange
from vit_jax.data.reading import handle_corrupt, try_each
from vit_jax.errors import InputError
from vit_jax.preprocess import ImagePreprocess
from vit_jax.progress import open_progress

LabelledImage = tuple[UInt8[np.ndarray, "h w c"], np.int32]


class Batch(NamedTuple):
    """images [B, h, w, c]; labels [B]; weights [B], 0 for rows that only fill the batch, else 1."""

    images: UInt8[np.ndarray, "b h w c"]
    labels: Int32[np.ndarray, " b"]
    weights: Float32[np.ndarray, " b"]


class CachedImages:
    """The images of a split at the model's size and with its channels: a random-access source of (pixels, label).

    budget: bytes of resized images to keep in memory; the others are decoded at every access.
    """

    def __init__(self, split: Split, preprocess: ImagePreprocess, *, budget: int):
        self.split = split
        self.preprocess = preprocess
        self.cache = ImageCache(budget)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of every image."""
        return (*self.preprocess.size, self.preprocess.preprocess.channels)

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> LabelledImage:
        """Return (uint8 [h, w, c], label). Raises as `open` does."""
        pixels = self.cache.get(index, lambda: self.preprocess.resize(self.open(index)))
        return pixels, self.split.labels[index]

    def open(self, index: int) -> Picture:
        """Return an image at its own size, with the model's channels.

        Raises CorruptImageError naming one that cannot be read, InputError naming one whose channels do not fit.
        """
        return to_channels(self.split.open(index), self.shape[2], name=self.split.names[index])

    def drop_corrupt(self) -> "CachedImages":
        """Return the readable images, reporting the others on stderr. Reads every image.

        Raises InputError when a class loses all its images.
        """
        readable: list[int] = []
        errors: list[CorruptImageError] = []
        with open_progress(len(self), unit="images", description="checked") as bar:
            for index, result in try_each(range(len(self)), self.__getitem__):
                if isinstance(result, CorruptImageError):
                    errors.append(result)
                    handle_corrupt(result, "skip")
                else:
                    readable.append(index)
                bar.update(1)
        if not errors:
            return self
        images = CachedImages(self.split.take(readable), self.preprocess, budget=0)
        if set(self.split.labels.tolist()) - set(images.split.labels.tolist()):
            raise InputError(f"every image of a class is unreadable, among them: {errors[0]}")
        images.cache = self.cache.take(readable)
        return images


def collate_images(items: Sequence[LabelledImage], count: int, shape: tuple[int, int, int]) -> Batch:
    """Return a batch of `count` rows; the missing ones are black images of label 0 and weight 0."""
    rows, weights = pad_batch_to(count, items, (np.zeros(shape, np.uint8), np.int32(0)))
    return Batch(np.stack([pixels for pixels, _ in rows]), np.array([label for _, label in rows], np.int32), weights)


def training_batches(
    images: CachedImages, batch_size: int, *, seed: int, epoch: int, start: int = 0, rows: RowRange | None = None
) -> Iterator[Batch]:
    """Yield the batches of an epoch, shuffled by (seed, epoch); see `read_batches` for start and rows.

    Raises CorruptImageError naming an image that cannot be read.
    """
    collate = partial(collate_images, shape=images.shape)
    return read_batches(shuffle(images, seed=seed, epoch=epoch), batch_size, collate, start=start, rows=rows)


def ordered_batches(images: CachedImages, batch_size: int, *, rows: RowRange | None = None) -> Iterator[Batch]:
    """Yield every image once, in order. Raises CorruptImageError naming an image that cannot be read."""
    return read_batches(images, batch_size, partial(collate_images, shape=images.shape), rows=rows)
