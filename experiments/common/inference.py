"""A model's answers on many pictures, a batch at a time, with progress."""

import sys
import time

import jax
import numpy as np

from vit_jax import VisionTransformer
from vit_jax.data.loader import CachedImages, ordered_batches
from vit_jax.train.classify import make_eval_step
from vit_jax.train.sharding import make_mesh, place, shard_batch


def compute_logits(model: VisionTransformer, pictures: CachedImages, batch_size: int) -> np.ndarray:
    """Logits [count, C] of every picture, in order. Raises CorruptImageError naming one that can't be read."""
    devices = jax.device_count()
    batch_size = -(-batch_size // devices) * devices
    mesh = make_mesh(batch_size)
    assert model.config.preprocess is not None
    step = make_eval_step(model.config.preprocess)
    model = place(mesh, model, fsdp=False)
    parts: list[np.ndarray] = []
    began = shown = time.monotonic()
    done = 0
    for batch in ordered_batches(pictures, batch_size):
        logits = np.asarray(step(model, shard_batch(mesh, batch))[1])
        parts.append(logits[: int(batch.weights.sum())])
        done += len(parts[-1])
        now = time.monotonic()
        if now - shown > 10:
            shown = now
            rate = done / (now - began)
            left = (len(pictures) - done) / rate
            print(f"{done}/{len(pictures)} images, {rate:.1f}/s, {left:.0f} s left", file=sys.stderr, flush=True)
    return np.concatenate(parts)
