"""The logits of many images, a batch at a time over all devices, with progress."""

import itertools
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from vit_jax.data.loader import CachedImages, collate_images
from vit_jax.data.reading import OnCorrupt, read_each
from vit_jax.model import VisionTransformer
from vit_jax.progress import open_progress
from vit_jax.train.classify import make_eval_step
from vit_jax.train.sharding import make_mesh, place, shard_batch


class Logits(NamedTuple):
    """Logits of the images that could be read, in order. indices: their positions among all images."""

    indices: Int[np.ndarray, " n"]
    logits: Float[np.ndarray, "n C"]


def compute_logits(
    model: VisionTransformer, images: CachedImages, batch_size: int, *, on_corrupt: OnCorrupt = "raise"
) -> Logits:
    """Return the logits of every image. batch_size is rounded up to a multiple of the number of devices.

    on_corrupt: "raise" raises CorruptImageError naming the first unreadable image; "skip" leaves unreadable images out
    and reports them on stderr.
    """
    devices = jax.device_count()
    batch_size = -(-batch_size // devices) * devices
    mesh = make_mesh(batch_size)
    step = make_eval_step(model.config.preprocess)
    model = place(mesh, model, fsdp=False)
    indices: list[int] = []
    parts = [np.zeros((0, model.config.num_classes), np.float32)]
    items = read_each(range(len(images)), images.__getitem__, ahead=2 * batch_size, on_corrupt=on_corrupt)
    with open_progress(len(images), unit="images") as bar:
        while chunk := list(itertools.islice(items, batch_size)):
            batch = collate_images([item for _, item in chunk], batch_size, images.shape)
            logits = np.asarray(step(model, shard_batch(mesh, batch))[1])
            parts.append(logits[: len(chunk)])
            indices += [index for index, _ in chunk]
            bar.update(len(chunk))
    return Logits(np.array(indices, np.int32), np.concatenate(parts))
