"""Faithfulness of a map: does the prediction depend on the patches that the map ranks highest?

    insertion_deletion   Petsiuk et al., BMVC 2018, arXiv 1806.07421
    perturbation_auc     Chefer et al., CVPR 2021, arXiv 2012.09838, section 4 (positive and negative perturbation)

Every score is one number per image; means and intervals are up to the caller. Compare a score with that of the
controls: a random map and a centred Gaussian (random_map, centred_map).

Letters: B batch, n patches, h x w image, F fractions removed.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from vit_jax.attention import Key
from vit_jax.errors import InputError
from vit_jax.explain.gradients import check_targets
from vit_jax.explain.heatmap import to_grid
from vit_jax.model import Images, VisionTransformer
from vit_jax.prediction import is_predicted, probabilities
from vit_jax.suggest import describe_unknown

Maps = Float[Array | np.ndarray, "b n"]
BASELINES = ("mean", "blur", "zero")


class RemovalCurves(NamedTuple):
    """The model's predictions after a fraction of the patches is removed.

    fractions:   [F], from 0 to 1
    probability: [B, F], of the target class
    correct:     [B, F], 1 where the target is the predicted class, else 0
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


def baseline_images(images: Images, baseline: str) -> Float[Array, "b h w c"]:
    """Return the pixels that replace removed patches.

    "mean": the image's mean colour. "blur": the image blurred, sigma 1/12 of each side. "zero": 0, the colour that
    normalisation subtracts. Raises InputError for an unknown baseline.
    """
    images = jnp.asarray(images)
    if baseline == "zero":
        return jnp.zeros_like(images)
    if baseline == "mean":
        return jnp.broadcast_to(images.mean(axis=(1, 2), keepdims=True), images.shape)
    if baseline != "blur":
        raise InputError(describe_unknown("baseline", baseline, BASELINES))

    def blur_matrix(size: int) -> Float[Array, "s s"]:
        distance = jnp.arange(size)[:, None] - jnp.arange(size)[None]
        weights = jnp.exp(-0.5 * (distance / (size / 12)) ** 2).astype(images.dtype)
        return weights / weights.sum(axis=1, keepdims=True)

    return jnp.einsum("yh,bhwc,xw->byxc", blur_matrix(images.shape[1]), images, blur_matrix(images.shape[2]))


def removal_curves(
    model: VisionTransformer,
    images: Images,
    maps: Maps,
    targets: Int[Array | np.ndarray, " b"],
    *,
    best_first: bool,
    steps: int = 10,
    baseline: str = "mean",
) -> RemovalCurves:
    """Remove the fractions 0, 1/steps, ..., 1 of the patches, by descending (best_first) or ascending score.

    Patches of equal score are removed in row-major order. Compiled. Raises InputError for maps that do not fit the
    images, an unknown class or baseline, steps below 2, and as the model does.
    """
    if steps < 2:
        raise InputError(f"steps must be at least 2, not {steps}")
    check_targets(targets, images.shape[0], model.config.num_outputs)
    to_grid(maps, model.config.grid_for(images.shape[1:3]))
    score = jnp.asarray(maps)
    return _curves(model, images, -score if best_first else score, targets, steps, baseline)


@functools.partial(jax.jit, static_argnames=("steps", "baseline"))
def _curves(
    model: VisionTransformer, images: Images, sort_keys: Maps, targets: Int[Array, " b"], steps: int, baseline: str
) -> RemovalCurves:
    """Compute removal_curves, removing the patches by ascending sort key."""
    grid, (ph, pw) = model.config.grid_for(images.shape[1:3]), model.config.patch_size
    replacement = baseline_images(images, baseline)
    rank = jnp.argsort(jnp.argsort(sort_keys, axis=-1, stable=True), axis=-1)

    def predict(num_removed: jax.Array) -> tuple[jax.Array, jax.Array]:
        removed = to_grid((rank < num_removed).astype(jnp.float32), grid)
        removed = jnp.repeat(jnp.repeat(removed, ph, axis=1), pw, axis=2)[..., None] > 0
        logits = model(jnp.where(removed, replacement, images)).astype(jnp.float32)
        probability = jnp.take_along_axis(probabilities(model.config, logits), targets[:, None], axis=1)[:, 0]
        return probability, is_predicted(model.config, logits, targets).astype(jnp.float32)

    fractions = np.linspace(0, 1, steps + 1)
    counts = jnp.asarray(np.round(fractions * math.prod(grid)).astype(np.int32))
    probability, correct = jax.lax.map(predict, counts)
    return RemovalCurves(jnp.asarray(fractions, jnp.float32), probability.T, correct.T)


def both_removal_curves(
    model: VisionTransformer,
    images: Images,
    maps: Maps,
    targets: Int[Array | np.ndarray, " b"],
    *,
    steps: int = 10,
    baseline: str = "mean",
) -> tuple[RemovalCurves, RemovalCurves]:
    """Return removal_curves with the best patches first, and with the worst first."""
    options: Any = {"steps": steps, "baseline": baseline}
    best = removal_curves(model, images, maps, targets, best_first=True, **options)
    return best, removal_curves(model, images, maps, targets, best_first=False, **options)


def area_under_curve(values: Float[Array, "b f"], fractions: Float[Array, " f"]) -> Float[Array, " b"]:
    """Return the mean height of a curve over its fractions, by the trapezoidal rule."""
    widths = jnp.diff(fractions)
    return ((values[:, 1:] + values[:, :-1]) / 2 * widths[None]).sum(axis=1) / widths.sum()


def insertion_deletion_from_curves(best_first: RemovalCurves, worst_first: RemovalCurves) -> InsertionDeletion:
    """Compute both areas. Inserting the best fraction f equals removing the worst fraction 1 - f."""
    return InsertionDeletion(
        area_under_curve(worst_first.probability, worst_first.fractions),
        area_under_curve(best_first.probability, best_first.fractions),
    )


def perturbation_auc_from_curves(best_first: RemovalCurves, worst_first: RemovalCurves) -> PerturbationAUC:
    """Compute both areas without the end points, where nothing or everything is removed."""
    inner = slice(1, -1)
    return PerturbationAUC(
        area_under_curve(best_first.correct[:, inner], best_first.fractions[inner]),
        area_under_curve(worst_first.correct[:, inner], worst_first.fractions[inner]),
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
    """Return the areas under the target's probability as the map's best patches are inserted, and as they are removed.

    maps: [B, n], a score per patch. Arguments and errors as in removal_curves.
    """
    curves = both_removal_curves(model, images, maps, targets, steps=steps, baseline=baseline)
    return insertion_deletion_from_curves(*curves)


def perturbation_auc(
    model: VisionTransformer,
    images: Images,
    maps: Maps,
    targets: Int[Array | np.ndarray, " b"],
    *,
    steps: int = 10,
    baseline: str = "mean",
) -> PerturbationAUC:
    """Return the areas under "the target is the predicted class" with 1/steps ... 1 - 1/steps of the patches removed.

    maps: [B, n], a score per patch; 10 steps remove 10 % to 90 %. Arguments and errors as in removal_curves.
    """
    return perturbation_auc_from_curves(
        *both_removal_curves(model, images, maps, targets, steps=steps, baseline=baseline)
    )


def random_map(key: Key, batch: int, n: int) -> Float[Array, "b n"]:
    """Return a control map: a uniform score for each patch."""
    return jax.random.uniform(key, (batch, n))


def centred_map(batch: int, grid: tuple[int, int]) -> Float[Array, "b n"]:
    """Return a control map: a centred Gaussian, sigma a quarter of each side. Photographers centre their subjects."""
    rows, columns = (((jnp.arange(size) + 0.5) / size - 0.5) / 0.25 for size in grid)
    blob = jnp.exp(-0.5 * (rows[:, None] ** 2 + columns[None] ** 2))
    return jnp.broadcast_to(blob.reshape(1, -1), (batch, grid[0] * grid[1]))
