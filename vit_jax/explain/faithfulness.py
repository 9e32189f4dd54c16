"""How good a map is: does the model need what it points at, and does it point at the object.

    insertion_deletion   Petsiuk et al., BMVC 2018, arXiv 1806.07421
    perturbation_auc     Chefer et al., CVPR 2021, arXiv 2012.09838, section 4 (positive and negative perturbation)
    pointing_game        Zhang et al., ECCV 2016, arXiv 1608.00507
    segmentation_scores  as in Chefer et al., 2012.09838, section 4, but for each image by itself

Everything answers one number for each image, so that means and intervals are the caller's. A score says little beside
nothing: hold it against that of a random map and of a centred blob (random_map, centred_map).

Letters: B batch, n patches, h x w image, F fractions removed.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from vit_jax.attention import Key
from vit_jax.errors import InputError
from vit_jax.explain.gradients import check_targets
from vit_jax.explain.heatmap import to_grid
from vit_jax.model import Images, VisionTransformer

Maps = Float[Array | np.ndarray, "b n"]
Heat = Float[Array | np.ndarray, "b gh gw"]
Mask = Bool[Array | np.ndarray, "b h w"]
BASELINES = ("mean", "blur", "zero")


class Curves(NamedTuple):
    """What the model answers with a share of the patches removed. fractions: [F], from 0 to 1.

    probability: [B, F], the target class's. correct: [B, F], 1 where it still is the model's first choice.
    """

    fractions: Float[Array, " f"]
    probability: Float[Array, "b f"]
    correct: Float[Array, "b f"]


class InsertionDeletion(NamedTuple):
    """Areas under the target's probability, [B], in [0, 1]: insertion higher is better, deletion lower is better."""

    insertion: Float[Array, " b"]
    deletion: Float[Array, " b"]


class PerturbationAUC(NamedTuple):
    """Areas under the accuracy, [B], in [0, 1]: positive (best patches first) lower is better, negative higher."""

    positive: Float[Array, " b"]
    negative: Float[Array, " b"]


class SegmentationScores(NamedTuple):
    """All [B] in [0, 1]. iou: the mean of the object's and the background's."""

    iou: Float[Array, " b"]
    pixel_accuracy: Float[Array, " b"]
    average_precision: Float[Array, " b"]


def baseline_images(images: Images, baseline: str) -> Float[Array, "b h w c"]:
    """What takes a removed patch's place: the image's mean colour, the image blurred (sigma 1/12 of its sides), or 0.

    0 is the colour that the normalisation subtracts. Raises InputError for another name.
    """
    images = jnp.asarray(images)
    if baseline == "zero":
        return jnp.zeros_like(images)
    if baseline == "mean":
        return jnp.broadcast_to(images.mean(axis=(1, 2), keepdims=True), images.shape)
    if baseline != "blur":
        raise InputError(f"unknown baseline {baseline!r}: one of {', '.join(BASELINES)}")

    def kernel(size: int) -> Float[Array, "s s"]:
        distance = jnp.arange(size)[:, None] - jnp.arange(size)[None]
        weights = jnp.exp(-0.5 * (distance / (size / 12)) ** 2).astype(images.dtype)
        return weights / weights.sum(axis=1, keepdims=True)

    return jnp.einsum("yh,bhwc,xw->byxc", kernel(images.shape[1]), images, kernel(images.shape[2]))


def removal_curves(
    model: VisionTransformer,
    images: Images,
    maps: Maps,
    targets: Int[Array | np.ndarray, " b"],
    *,
    best_first: bool,
    steps: int = 10,
    baseline: str = "mean",
) -> Curves:
    """The model's answer as patches are removed, the map's best or worst first, 0, 1/steps, ... and all of them.

    Equal scores go in the order of the patches. Compiled. Raises InputError for a map that does not fit the images, a
    class that there is not, steps below 2, an unknown baseline, and as the model does.
    """
    if steps < 2:
        raise InputError(f"steps must be at least 2, not {steps}")
    check_targets(targets, images.shape[0], model.config.num_outputs)
    to_grid(maps, model.config.grid_for(images.shape[1:3]))
    score = jnp.asarray(maps)
    return _curves(model, images, -score if best_first else score, targets, steps, baseline)


@functools.partial(jax.jit, static_argnames=("steps", "baseline"))
def _curves(
    model: VisionTransformer, images: Images, keys: Maps, targets: Int[Array, " b"], steps: int, baseline: str
) -> Curves:
    """removal_curves with the patches of the lowest key first."""
    grid, (ph, pw) = model.config.grid_for(images.shape[1:3]), model.config.patch_size
    instead = baseline_images(images, baseline)
    rank = jnp.argsort(jnp.argsort(keys, axis=-1, stable=True), axis=-1)

    def answer(count: jax.Array) -> tuple[jax.Array, jax.Array]:
        gone = to_grid((rank < count).astype(jnp.float32), grid)
        gone = jnp.repeat(jnp.repeat(gone, ph, axis=1), pw, axis=2)[..., None] > 0
        logits = model(jnp.where(gone, instead, images)).astype(jnp.float32)
        probability = jnp.take_along_axis(jax.nn.softmax(logits), targets[:, None], axis=1)[:, 0]
        return probability, (logits.argmax(axis=1) == targets).astype(jnp.float32)

    fractions = np.linspace(0, 1, steps + 1)
    counts = jnp.asarray(np.round(fractions * math.prod(grid)).astype(np.int32))
    probability, correct = jax.lax.map(answer, counts)
    return Curves(jnp.asarray(fractions, jnp.float32), probability.T, correct.T)


def both_curves(
    model: VisionTransformer,
    images: Images,
    maps: Maps,
    targets: Int[Array | np.ndarray, " b"],
    *,
    steps: int = 10,
    baseline: str = "mean",
) -> tuple[Curves, Curves]:
    """removal_curves with the best patches first, and with the worst first."""
    options: Any = {"steps": steps, "baseline": baseline}
    best = removal_curves(model, images, maps, targets, best_first=True, **options)
    return best, removal_curves(model, images, maps, targets, best_first=False, **options)


def area(values: Float[Array, "b f"], fractions: Float[Array, " f"]) -> Float[Array, " b"]:
    """The mean height of a curve over its fractions, by the trapezoidal rule."""
    widths = jnp.diff(fractions)
    return ((values[:, 1:] + values[:, :-1]) / 2 * widths[None]).sum(axis=1) / widths.sum()


def insertion_deletion_from_curves(best_first: Curves, worst_first: Curves) -> InsertionDeletion:
    """From both curves: to insert the best share f is to have removed the worst share 1 - f."""
    return InsertionDeletion(
        area(worst_first.probability, worst_first.fractions), area(best_first.probability, best_first.fractions)
    )


def perturbation_auc_from_curves(best_first: Curves, worst_first: Curves) -> PerturbationAUC:
    """From both curves, their ends (nothing removed, everything removed) left out."""
    inner = slice(1, -1)
    return PerturbationAUC(
        area(best_first.correct[:, inner], best_first.fractions[inner]),
        area(worst_first.correct[:, inner], worst_first.fractions[inner]),
    )


def insertion_deletion(
    model: VisionTransformer,
    images: Images,
    maps: Maps,
    targets: Int[Array | np.ndarray, " b"],
    *,
    steps: int = 10,
    baseline: str = "blur",
) -> InsertionDeletion:
    """Areas under the target's probability as the map's best patches are put in, and as they are taken out.

    maps: [B, n], a score for each patch. Arguments and errors as in removal_curves.
    """
    return insertion_deletion_from_curves(*both_curves(model, images, maps, targets, steps=steps, baseline=baseline))


def perturbation_auc(
    model: VisionTransformer,
    images: Images,
    maps: Maps,
    targets: Int[Array | np.ndarray, " b"],
    *,
    steps: int = 10,
    baseline: str = "mean",
) -> PerturbationAUC:
    """Areas under "the target still is the first choice" with 1/steps ... 1 - 1/steps of the patches removed.

    maps: [B, n], a score for each patch; 10 steps remove 10 % to 90 %. Arguments and errors as in removal_curves.
    """
    return perturbation_auc_from_curves(*both_curves(model, images, maps, targets, steps=steps, baseline=baseline))


def _flat(heat: Heat, mask: Mask, valid: Mask | None) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Heat, mask and validity as [B, h * w]."""
    if heat.shape != mask.shape or (valid is not None and valid.shape != mask.shape):
        raise InputError(f"a map of shape {tuple(heat.shape)} does not fit a mask of {tuple(mask.shape)}")
    b = heat.shape[0]
    counts = jnp.ones(mask.shape, bool) if valid is None else jnp.asarray(valid)
    return jnp.asarray(heat).reshape(b, -1), jnp.asarray(mask).reshape(b, -1), counts.reshape(b, -1)


@jax.jit
def pointing_game(heat: Heat, mask: Mask, valid: Mask | None = None) -> Float[Array, " b"]:
    """1 where the map's highest pixel lies on the object, else 0: [B].

    heat: [B, h, w], enlarged to the mask's size. mask: the object. valid: pixels that count, all if None.
    Raises InputError when the shapes differ.
    """
    scores, inside, counts = _flat(heat, mask, valid)
    best = jnp.where(counts, scores, -jnp.inf).argmax(axis=1)
    return jnp.take_along_axis(inside, best[:, None], axis=1)[:, 0].astype(jnp.float32)


def _average_precision(
    scores: Float[Array, " p"], inside: Bool[Array, " p"], counts: Bool[Array, " p"]
) -> Float[Array, ""]:
    """The area under precision against recall over all thresholds, equal scores at once (scikit-learn's definition)."""
    order = jnp.argsort(-jnp.where(counts, scores, -jnp.inf))
    scores, hits, counted = scores[order], (inside & counts)[order], counts[order].astype(jnp.float32)
    hits = hits.astype(jnp.float32)
    last_equal = jnp.searchsorted(-jnp.where(counted > 0, scores, -jnp.inf), -scores, side="right") - 1
    precision = (jnp.cumsum(hits) / jnp.maximum(jnp.cumsum(counted), 1.0))[last_equal]
    return (precision * hits).sum() / jnp.maximum(hits.sum(), 1.0)


@jax.jit
def segmentation_scores(heat: Heat, mask: Mask, valid: Mask | None = None) -> SegmentationScores:
    """The map as a segmentation of the object: what is above its mean is the object; average precision needs no cut.

    Arguments and errors as in pointing_game. An image without object or background has an IoU of 0 for that part
    unless the map leaves it empty too (then 1).
    """
    scores, inside, counts = _flat(heat, mask, valid)
    total = counts.sum(axis=1).astype(jnp.float32)
    mean = jnp.where(counts, scores, 0).sum(axis=1, keepdims=True) / total[:, None]
    said = scores > mean

    def iou(a: Bool[Array, "b p"], b: Bool[Array, "b p"]) -> Float[Array, " b"]:
        both, either = (a & b & counts).sum(axis=1), ((a | b) & counts).sum(axis=1)
        return jnp.where(either > 0, both / jnp.maximum(either, 1), 1.0).astype(jnp.float32)

    return SegmentationScores(
        (iou(said, inside) + iou(~said, ~inside)) / 2,
        ((said == inside) & counts).sum(axis=1) / total,
        jax.vmap(_average_precision)(scores, inside, counts),
    )


def random_map(key: Key, batch: int, n: int) -> Float[Array, "b n"]:
    """A control: a uniform score for each patch."""
    return jax.random.uniform(key, (batch, n))


def centred_map(batch: int, grid: tuple[int, int]) -> Float[Array, "b n"]:
    """A control: a Gaussian in the middle, its sigma a quarter of each side. Photographers centre their subjects."""
    rows, columns = (((jnp.arange(size) + 0.5) / size - 0.5) / 0.25 for size in grid)
    blob = jnp.exp(-0.5 * (rows[:, None] ** 2 + columns[None] ** 2))
    return jnp.broadcast_to(blob.reshape(1, -1), (batch, grid[0] * grid[1]))
