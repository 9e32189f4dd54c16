"""Labelled images: sources, decoding, batches and augmentation (vit_jax.data.augment)."""

from vit_jax.data.batches import batches_per_epoch, pad_batch_to, read_batches, shuffle
from vit_jax.data.dataset import Dataset, Split, hold_out
from vit_jax.data.datasets import open_dataset
from vit_jax.data.decode import CorruptImageError, open_picture, open_rgb
from vit_jax.data.digits import open_digits
from vit_jax.data.folder import image_files, open_folder, open_folder_split
from vit_jax.data.formats import image_suffixes
from vit_jax.data.loader import Batch, CachedImages, ordered_batches, training_batches
from vit_jax.data.pets import open_pets
from vit_jax.data.reading import OnCorrupt, read_each
from vit_jax.data.tfds import open_tfds

__all__ = [
    "Batch",
    "CachedImages",
    "CorruptImageError",
    "Dataset",
    "OnCorrupt",
    "Split",
    "batches_per_epoch",
    "hold_out",
    "image_files",
    "image_suffixes",
    "open_dataset",
    "open_digits",
    "open_folder",
    "open_folder_split",
    "open_pets",
    "open_picture",
    "open_rgb",
    "open_tfds",
    "ordered_batches",
    "pad_batch_to",
    "read_batches",
    "read_each",
    "shuffle",
    "training_batches",
]
