"""mixup (https://arxiv.org/abs/1710.09412) and cutmix (https://arxiv.org/abs/1905.04899) on the device.

As torchvision's v2 transforms have them: one share for a batch, drawn from Beta(alpha, alpha); each image's partner is
the one before it in the batch; with both, one of them is drawn for each batch.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vit_jax.attention import Key


class MixConfig(NamedTuple):
    """mixup, cutmix: alpha, 0 for none of it. classes: how many there are."""

    mixup: float = 0.0
    cutmix: float = 0.0
    classes: int = 0


NO_MIX = MixConfig()
Images = Float[Array, "b h w c"]
SoftLabels = Float[Array, "b classes"]


def mix_batch(
    key: Key, images: Images, shares: SoftLabels, weights: Float[Array, " b"], mixing: MixConfig
) -> tuple[Images, SoftLabels]:
    """Images and their classes' shares, mixed with their partners'. Rows of weight 0, the last ones, take no part."""
    which_key, share_key, box_key = jax.random.split(key, 3)
    partners = partner_rows(weights)

    def blended() -> tuple[Images, SoftLabels]:
        share = jax.random.beta(share_key, mixing.mixup, mixing.mixup, dtype=images.dtype)
        return mixup(images, shares, partners, share)

    def pasted() -> tuple[Images, SoftLabels]:
        share = jax.random.beta(share_key, mixing.cutmix, mixing.cutmix, dtype=images.dtype)
        row, column = jax.random.uniform(box_key, (2,))
        h, w = images.shape[1:3]
        centre = jnp.floor(row * h).astype(jnp.int32), jnp.floor(column * w).astype(jnp.int32)
        return cutmix(images, shares, partners, share, centre)

    if mixing.mixup and mixing.cutmix:
        return jax.lax.cond(jax.random.bernoulli(which_key), blended, pasted)
    return blended() if mixing.mixup else pasted()


def partner_rows(weights: Float[Array, " b"]) -> Array:
    """The row before each, the first one's being the last that counts; a row that does not count is its own."""
    rows = jnp.arange(weights.shape[0])
    count = (weights > 0).sum()
    return jnp.where(rows >= count, rows, jnp.where(rows == 0, count - 1, rows - 1))


def mixup(images: Images, shares: SoftLabels, partners: Array, share: Float[Array, ""]) -> tuple[Images, SoftLabels]:
    """share of each image and 1 - share of its partner."""
    return tuple(share * x + (1 - share) * x[partners] for x in (images, shares))  # type: ignore[return-value]


def cutmix(
    images: Images, shares: SoftLabels, partners: Array, share: Float[Array, ""], centre: tuple[Array, Array]
) -> tuple[Images, SoftLabels]:
    """The partner's pixels in a box of the share 1 - share, about the centre, cut at the edges; shares by its area."""
    h, w = images.shape[1:3]
    half = 0.5 * jnp.sqrt(1 - share)
    sides = []
    for length, middle in ((h, centre[0]), (w, centre[1])):
        reach = jnp.floor(half * length).astype(jnp.int32)
        sides.append((jnp.clip(middle - reach, 0, length), jnp.clip(middle + reach, 0, length)))
    (top, bottom), (left, right) = sides
    rows, columns = jnp.arange(h).reshape(1, h, 1, 1), jnp.arange(w).reshape(1, 1, w, 1)
    inside = (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)
    kept = 1 - ((bottom - top) * (right - left)).astype(shares.dtype) / (h * w)
    return jnp.where(inside, images[partners], images), kept * shares + (1 - kept) * shares[partners]
