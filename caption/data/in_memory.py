"""Captioned images in memory, as a CaptionDataset."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from caption.data.captions import CaptionDataset
from vit_jax.background import WHITE
from vit_jax.channels import as_picture, as_rgb
from vit_jax.data.decode import as_upright
from vit_jax.errors import InputError


@dataclass(frozen=True)
class InMemoryCaptions(CaptionDataset):
    """A CaptionDataset whose images are in memory. paths are names for messages."""

    images: Sequence[Any] = ()

    @classmethod
    def from_images(
        cls, images: Sequence[Any], captions: Sequence[str | Sequence[str]], *, name: str
    ) -> "InMemoryCaptions":
        """Return the data set of these images and captions.

        images: PIL images or uint8 arrays. captions: for each image a caption, or a list of them. name: for messages.
        Raises InputError for other numbers, for images that are none, and for empty captions.
        """
        if isinstance(captions, str):
            raise InputError(f"{name}: captions are one text; give a list, with captions for each image")
        if len(images) != len(captions):
            raise InputError(
                f"{name}: {len(images):,} images and {len(captions):,} captions; give each image its captions"
            )
        names = [f"{name} image {index}" for index in range(len(captions))]
        texts = [_as_texts(several, names[index]) for index, several in enumerate(captions)]
        for index, image in enumerate(images):
            as_rgb(as_picture(image, name=names[index]), name=names[index])
        return cls(tuple(map(Path, names)), tuple(texts), tuple(names), images)

    def open(self, index: int, *, background: str = WHITE, max_value: float | None = None) -> Image.Image:
        """Return the image at an index, upright RGB on a background. max_value: not used, since images have 8 bits.

        Raises InputError naming one that is no image.
        """
        name = str(self.paths[index])
        return as_rgb(as_upright(self.images[index], name=name), name=name, background=background)

    def take(self, indices: Sequence[int] | np.ndarray) -> "InMemoryCaptions":
        """Return the data set of the images at these indices, in this order."""
        taken = super().take(indices)
        return InMemoryCaptions(taken.paths, taken.captions, taken.ids, [self.images[int(index)] for index in indices])


def _as_texts(captions: Any, name: str) -> tuple[str, ...]:
    """Return the captions of an image, given one or several. Raises InputError for one that is empty or no text."""
    texts = (captions,) if isinstance(captions, str) else captions
    if not isinstance(texts, tuple | list) or not all(isinstance(text, str) for text in texts):
        raise InputError(f"{name}: {captions!r:.60} is no caption; give a text, or a list of texts")
    if not texts or not all(text.strip() for text in texts):
        raise InputError(f"{name}: an empty caption; give it one, or leave the image out")
    return tuple(map(str, texts))
