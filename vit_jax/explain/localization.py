"""Localization: does a map point at the object that a mask marks?

    pointing_game        Zhang et al., ECCV 2016, arXiv 1608.00507
    segmentation_scores  as in Chefer et al., CVPR 2021, arXiv 2012.09838, section 4, but per image

Every score is one number per image.

Letters: B batch, h x w image, P pixels.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from vit_jax.errors import InputError

Heat = Float[Array | np.ndarray, "b gh gw"]
Mask = Bool[Array | np.ndarray, "b h w"]


class SegmentationScores(NamedTuple):
    """Scores [B] in [0, 1]. iou: mean of the object's and the background's intersection over union."""

    iou: Float[Array, " b"]
    pixel_accuracy: Float[Array, " b"]
    average_precision: Float[Array, " b"]


def _flatten(heat: Heat, mask: Mask, valid: Mask | None) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return heat, mask and validity as [B, h * w]. Raises InputError when the shapes differ."""
    if heat.shape != mask.shape or (valid is not None and valid.shape != mask.shape):
        raise InputError(f"a map of shape {tuple(heat.shape)} does not fit a mask of {tuple(mask.shape)}")
    b = heat.shape[0]
    valid = jnp.ones(mask.shape, bool) if valid is None else jnp.asarray(valid)
    return jnp.asarray(heat).reshape(b, -1), jnp.asarray(mask).reshape(b, -1), valid.reshape(b, -1)


@jax.jit
def pointing_game(heat: Heat, mask: Mask, valid: Mask | None = None) -> Float[Array, " b"]:
    """Return 1 where the map's highest pixel lies on the object, else 0: [B].

    heat: [B, h, w], upsampled to the mask's size. mask: the object. valid: the pixels that count, all if None.
    Raises InputError when the shapes differ.
    """
    scores, inside, valid = _flatten(heat, mask, valid)
    best = jnp.where(valid, scores, -jnp.inf).argmax(axis=1)
    return jnp.take_along_axis(inside, best[:, None], axis=1)[:, 0].astype(jnp.float32)


def _average_precision(
    scores: Float[Array, " p"], inside: Bool[Array, " p"], valid: Bool[Array, " p"]
) -> Float[Array, ""]:
    """Return the average precision over all thresholds; equal scores share one (scikit-learn's definition)."""
    order = jnp.argsort(-jnp.where(valid, scores, -jnp.inf))
    scores, hits, is_valid = scores[order], (inside & valid)[order], valid[order].astype(jnp.float32)
    hits = hits.astype(jnp.float32)
    last_equal = jnp.searchsorted(-jnp.where(is_valid > 0, scores, -jnp.inf), -scores, side="right") - 1
    precision = (jnp.cumsum(hits) / jnp.maximum(jnp.cumsum(is_valid), 1.0))[last_equal]
    return (precision * hits).sum() / jnp.maximum(hits.sum(), 1.0)


@jax.jit
def segmentation_scores(heat: Heat, mask: Mask, valid: Mask | None = None) -> SegmentationScores:
    """Score the map as a segmentation: pixels above its mean are the object. Average precision uses all thresholds.

    Arguments and errors as in pointing_game. Where an image has no object or no background, the IoU of that part is 1
    if the segmentation has none either, else 0.
    """
    scores, inside, valid = _flatten(heat, mask, valid)
    total = valid.sum(axis=1).astype(jnp.float32)
    mean = jnp.where(valid, scores, 0).sum(axis=1, keepdims=True) / total[:, None]
    predicted = scores > mean

    def iou(a: Bool[Array, "b p"], b: Bool[Array, "b p"]) -> Float[Array, " b"]:
        intersection, union = (a & b & valid).sum(axis=1), ((a | b) & valid).sum(axis=1)
        return jnp.where(union > 0, intersection / jnp.maximum(union, 1), 1.0).astype(jnp.float32)

    return SegmentationScores(
        (iou(predicted, inside) + iou(~predicted, ~inside)) / 2,
        ((predicted == inside) & valid).sum(axis=1) / total,
        jax.vmap(_average_precision)(scores, inside, valid),
    )
