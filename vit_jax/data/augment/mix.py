"""mixup (https://arxiv.org/abs/1710.09412) and cutmix (https://arxiv.org/abs/1905.04899) on the device.

As in torchvision.transforms.v2: one mixing ratio per batch from Beta(alpha, alpha); the partner of an image is the one
before it in the batch; when both are enabled, each batch uses one of them with probability 1/2.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vit_jax.attention import Key


class MixConfig(NamedTuple):
    """The alpha of mixup and of cutmix, 0 to disable it, and the number of classes."""

    mixup: float = 0.0
    cutmix: float = 0.0
    classes: int = 0


NO_MIX = MixConfig()
Images = Float[Array, "b h w c"]
SoftLabels = Float[Array, "b classes"]
Ratio = Float[Array, ""]


def mix_batch(
    key: Key, images: Images, labels: SoftLabels, weights: Float[Array, " b"], config: MixConfig
) -> tuple[Images, SoftLabels]:
    """Mix images and soft labels with those of their partners. The last rows, of weight 0, take no part."""
    which_key, ratio_key, box_key = jax.random.split(key, 3)
    partners = partner_rows(weights)

    def apply_mixup() -> tuple[Images, SoftLabels]:
        ratio = jax.random.beta(ratio_key, config.mixup, config.mixup, dtype=images.dtype)
        return mixup(images, labels, partners, ratio)

    def apply_cutmix() -> tuple[Images, SoftLabels]:
        ratio = jax.random.beta(ratio_key, config.cutmix, config.cutmix, dtype=images.dtype)
        row, column = jax.random.uniform(box_key, (2,))
        h, w = images.shape[1:3]
        centre = jnp.floor(row * h).astype(jnp.int32), jnp.floor(column * w).astype(jnp.int32)
        return cutmix(images, labels, partners, ratio, centre)

    if config.mixup and config.cutmix:
        return jax.lax.cond(jax.random.bernoulli(which_key), apply_mixup, apply_cutmix)
    return apply_mixup() if config.mixup else apply_cutmix()


def partner_rows(weights: Float[Array, " b"]) -> Int[Array, " b"]:
    """Return each row's partner: the row before it, and for row 0 the last row of weight 1.

    A row of weight 0 is its own partner.
    """
    rows = jnp.arange(weights.shape[0])
    count = (weights > 0).sum()
    return jnp.where(rows >= count, rows, jnp.where(rows == 0, count - 1, rows - 1))


def mixup(images: Images, labels: SoftLabels, partners: Int[Array, " b"], ratio: Ratio) -> tuple[Images, SoftLabels]:
    """Return ratio * x + (1 - ratio) * partner of images and soft labels."""
    return tuple(ratio * x + (1 - ratio) * x[partners] for x in (images, labels))  # type: ignore[return-value]


def cutmix(
    images: Images, labels: SoftLabels, partners: Int[Array, " b"], ratio: Ratio, centre: tuple[Array, Array]
) -> tuple[Images, SoftLabels]:
    """Paste a box of the partner into each image: 1 - ratio of the area around `centre` (row, column), before clipping.

    The soft labels are mixed by the box's area after clipping at the edges of the image.
    """
    h, w = images.shape[1:3]
    half = 0.5 * jnp.sqrt(1 - ratio)
    sides = []
    for length, middle in ((h, centre[0]), (w, centre[1])):
        reach = jnp.floor(half * length).astype(jnp.int32)
        sides.append((jnp.clip(middle - reach, 0, length), jnp.clip(middle + reach, 0, length)))
    (top, bottom), (left, right) = sides
    rows, columns = jnp.arange(h).reshape(1, h, 1, 1), jnp.arange(w).reshape(1, 1, w, 1)
    inside = (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)
    own = 1 - ((bottom - top) * (right - left)).astype(labels.dtype) / (h * w)
    return jnp.where(inside, images[partners], images), own * labels + (1 - own) * labels[partners]
