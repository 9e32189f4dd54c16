"""Labelled images as batches of 8-bit arrays at the model's size, kept in memory within a budget."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, UInt8

from vit_jax.channels import Picture, to_channels
from vit_jax.data.balance import Selected, balanced_indices
from vit_jax.data.batches import pad_batch_to, read_batches, shuffle
from vit_jax.data.cache import ImageCache
from vit_jax.data.dataset import Labels, Split
from vit_jax.data.decode import CorruptImageError
from vit_jax.data.process_shard import RowRange
from vit_jax.data.reading import handle_corrupt, try_each
from vit_jax.errors import InputError
from vit_jax.preprocess import ImagePreprocess
from vit_jax.progress import open_progress

NO_LABEL = np.int32(0)
LabelledImage = tuple[UInt8[np.ndarray, "h w c"], Any]


class Batch(NamedTuple):
    """images [B, h, w, c]; labels [B], or [B, C] of sets; weights [B], 0 for rows that only fill the batch, else 1."""

    images: UInt8[np.ndarray, "b h w c"]
    labels: Labels
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
        """Return (uint8 [h, w, c], label), the label int32 or bool [C]. Raises as `open` does."""
        pixels = self.cache.get(index, lambda: self.preprocess.resize(self.open(index)))
        return pixels, self.split.labels[index]

    def open(self, index: int) -> Picture:
        """Return an image at its own size, with the model's channels.

        Raises CorruptImageError naming one that cannot be read, InputError naming one whose channels do not fit.
        """
        settings = self.preprocess.preprocess
        options = {} if settings.max_value is None else {"max_value": settings.max_value}
        picture, name = self.split.open(index, **options), self.split.names[index]
        return to_channels(picture, settings.channels, name=name, background=settings.background)

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
        if _classes_of(self.split) - _classes_of(images.split):
            raise InputError(f"every image of a class is unreadable, among them: {errors[0]}")
        images.cache = self.cache.take(readable)
        return images


def _classes_of(split: Split) -> set[int]:
    """Return the classes that have an image."""
    return set((np.flatnonzero(split.labels.any(axis=0)) if split.is_multi_label else split.labels).tolist())


def collate_images(
    items: Sequence[LabelledImage], count: int, shape: tuple[int, int, int], no_label: Any = NO_LABEL
) -> Batch:
    """Return a batch of `count` rows; the missing ones are black images of label `no_label` and weight 0."""
    rows, weights = pad_batch_to(count, items, (np.zeros(shape, np.uint8), no_label))
    return Batch(np.stack([pixels for pixels, _ in rows]), np.stack([label for _, label in rows]), weights)


def make_collate(images: CachedImages) -> Callable[[Sequence[LabelledImage], int], Batch]:
    """Return (items, count) -> Batch, for the images of a split."""
    no_label = np.zeros_like(images.split.labels[0]) if len(images) else NO_LABEL
    return partial(collate_images, shape=images.shape, no_label=no_label)


def training_batches(
    images: CachedImages,
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    start: int = 0,
    rows: RowRange | None = None,
    balanced: bool = False,
) -> Iterator[Batch]:
    """Yield the batches of an epoch, shuffled by (seed, epoch); see `read_batches` for start and rows.

    balanced: draw all classes equally often, see `balanced_indices`; the epoch has as many images.
    Raises CorruptImageError naming an image that cannot be read.
    """
    if balanced:
        shuffled = Selected(images, balanced_indices(images.split, seed=seed, epoch=epoch))
    else:
        shuffled = shuffle(images, seed=seed, epoch=epoch)
    return read_batches(shuffled, batch_size, make_collate(images), start=start, rows=rows)


def ordered_batches(images: CachedImages, batch_size: int, *, rows: RowRange | None = None) -> Iterator[Batch]:
    """Yield every image once, in order. Raises CorruptImageError naming an image that cannot be read."""
    return read_batches(images, batch_size, make_collate(images), rows=rows)
