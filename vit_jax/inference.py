"""The outputs of a model for many images, a batch at a time over the devices of this process, with progress."""

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jaxtyping import Float, Int

from vit_jax._xla import compiler_options
from vit_jax.data.loader import CachedImages, make_collate
from vit_jax.data.reading import OnCorrupt, read_each
from vit_jax.model import VisionTransformer
from vit_jax.preprocess import Preprocess
from vit_jax.progress import open_progress
from vit_jax.train.sharding import AXIS, place


class Outputs(NamedTuple):
    """Outputs for images that could be read, in order.

    indices:  their positions among all images.
    logits:   [n, C]; C is 0 for a model without a head.
    features: [n, D], the pooled features that the head reads.
    """

    indices: Int[np.ndarray, " n"]
    logits: Float[np.ndarray, "n C"]
    features: Float[np.ndarray, "n D"]


@functools.cache  # so that it is compiled once
def make_output_step(preprocess: Preprocess) -> Callable[[Any, Any], tuple[jax.Array, jax.Array]]:
    """Return a compiled (model, 8-bit images) -> (logits [B, C], pooled features [B, D]), both float32."""

    def output_step(model: VisionTransformer, images: Any) -> tuple[jax.Array, jax.Array]:
        normalized = preprocess.normalize(jnp.asarray(images).astype(jnp.float32) / 255)
        tokens = model.apply_final_norm(model.run(normalized, num_queries=model.config.num_head_tokens).tokens)
        features, outputs = model.pool_features(tokens), model.classify(tokens)
        logits = outputs[:, : model.config.num_classes]  # without a head the outputs are the features
        return logits.astype(jnp.float32), features.astype(jnp.float32)

    return jax.jit(output_step, compiler_options=compiler_options(forward_only=True))


def iterate_outputs(
    model: VisionTransformer, images: CachedImages, batch_size: int, *, on_corrupt: OnCorrupt = "raise"
) -> Iterator[Outputs]:
    """Yield the outputs of every image, by batches. batch_size is rounded up to a multiple of the number of devices.

    on_corrupt: "raise" raises CorruptImageError naming the first unreadable image; "skip" leaves unreadable images out
    and reports them on stderr.
    """
    devices = jax.local_devices()
    batch_size = -(-batch_size // len(devices)) * len(devices)
    mesh = jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)
    rows = NamedSharding(mesh, PartitionSpec(AXIS))
    step, collate = make_output_step(model.config.preprocess), make_collate(images)
    model = place(mesh, model, fsdp=False)
    items = read_each(range(len(images)), images.__getitem__, ahead=2 * batch_size, on_corrupt=on_corrupt)
    with open_progress(len(images), unit="images") as bar:
        while chunk := list(itertools.islice(items, batch_size)):
            batch = collate([item for _, item in chunk], batch_size)
            logits, features = step(model, jax.device_put(batch.images, rows))
            indices = np.array([index for index, _ in chunk], np.int32)
            yield Outputs(indices, np.asarray(logits)[: len(chunk)], np.asarray(features)[: len(chunk)])
            bar.update(len(chunk))


def compute_outputs(
    model: VisionTransformer, images: CachedImages, batch_size: int, *, on_corrupt: OnCorrupt = "raise"
) -> Outputs:
    """Return the outputs of every image. Arguments and errors as in iterate_outputs."""
    config = model.config
    parts = [
        Outputs(
            np.zeros(0, np.int32),
            np.zeros((0, config.num_classes), np.float32),
            np.zeros((0, config.representation or config.pooled_width), np.float32),
        )
    ]
    parts += iterate_outputs(model, images, batch_size, on_corrupt=on_corrupt)
    return Outputs(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
