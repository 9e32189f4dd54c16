"""The balanced sampler: epochs in which every class comes equally often. A function of (seed, epoch) alone."""

from typing import Any

import numpy as np
from jaxtyping import Int

from vit_jax.data.dataset import Split, rarest_labels

STREAM = 1  # of random numbers: not those of the order of images


def balanced_indices(split: Split, *, seed: int, epoch: int) -> Int[np.ndarray, " count"]:
    """Return as many indices as there are images, of all classes equally often (to one image), in a random order.

    A small class repeats all its images before one comes again; of a large one some are left out. An image with several
    labels counts for its rarest class.
    """
    rng = np.random.default_rng([seed, epoch, STREAM])
    labels = rarest_labels(split.labels) if split.is_multi_label else split.labels
    classes = rng.permutation(np.unique(labels))
    counts = np.full(len(classes), len(split) // len(classes))
    counts[: len(split) % len(classes)] += 1
    drawn = []
    for label, count in zip(classes, counts, strict=True):
        members = np.flatnonzero(labels == label)
        rounds = -(-count // len(members))
        drawn.append(np.concatenate([rng.permutation(members) for _ in range(rounds)] or [members])[:count])
    return rng.permutation(np.concatenate(drawn))


class Selected:
    """The items of a random-access source at these indices, in this order."""

    def __init__(self, source: Any, indices: Int[np.ndarray, " count"]):
        self.source, self.indices = source, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Any:
        return self.source[int(self.indices[index])]
