"""Score explanation methods and controls on masked images, and format the scores as a table."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from experiments.explain.masked_images import BACKGROUND, OBJECT, MaskedBatch
from vit_jax import VisionTransformer, pointing_game, segmentation_scores, upsample
from vit_jax.explain import METHODS, MethodOptions, centred_map, compile_method, random_map, uninformative_reason
from vit_jax.explain.faithfulness import (
    both_removal_curves,
    insertion_deletion_from_curves,
    perturbation_auc_from_curves,
)
from vit_jax.progress import open_progress

MakeMaps = Callable[[Any, Any, int], Any]  # (images, targets [B], number of the batch) -> maps [B, gh, gw] or [B, h, w]
Scores = dict[str, np.ndarray]
REMOVAL_SCORES = ("insertion", "deletion", "positive", "negative")  # one per baseline
LOCALIZATION_SCORES = ("pointing", "iou", "pixel accuracy", "AP")
NO_INFORMATION = "no information"  # key of the flags of maps that say nothing about their image
SECONDS = "seconds"
LOWER_IS_BETTER = {"deletion", "positive"}


def make_methods(model: VisionTransformer, names: Sequence[str], options: MethodOptions) -> dict[str, MakeMaps]:
    """Return the methods and the two controls by name, each as a function that returns maps."""
    grid = model.config.grid

    def bind(name: str) -> MakeMaps:
        compute_maps = compile_method(name, options)
        return lambda images, targets, number: compute_maps(model, images, targets[:, None])[:, 0]

    def random_control(images: Any, targets: Any, number: int) -> Any:
        key = jax.random.fold_in(jax.random.key(options.seed), number)
        return random_map(key, len(images), math.prod(grid)).reshape(-1, *grid)

    def centred_control(images: Any, targets: Any, number: int) -> Any:
        return centred_map(len(images), grid).reshape(-1, *grid)

    methods = {name: bind(name) for name in names}
    return methods | {"random (control)": random_control, "centred (control)": centred_control}


def _average_over_patches(maps: Any, patch_size: tuple[int, int]) -> Any:
    """Average pixelwise maps [B, h, w] over each patch, to [B, gh, gw]."""
    b, h, w = maps.shape
    ph, pw = patch_size
    return maps.reshape(b, h // ph, ph, w // pw, pw).mean(axis=(2, 4))


def score_maps(
    model: VisionTransformer, batch: MaskedBatch, maps: Any, baselines: tuple[str, ...], *, is_pixelwise: bool
) -> dict[str, np.ndarray]:
    """Score maps [B, gh, gw], or [B, h, w] if pixelwise: each score [B], removal scores as "name/baseline"."""
    heat = upsample(maps, model.config.image_size)
    patch_maps = _average_over_patches(maps, model.config.patch_size) if is_pixelwise else maps
    flat = patch_maps.reshape(len(maps), -1)
    scores: dict[str, Any] = {}
    for baseline in baselines:
        best, worst = both_removal_curves(model, batch.images, flat, batch.targets, baseline=baseline)
        areas = (*insertion_deletion_from_curves(best, worst), *perturbation_auc_from_curves(best, worst))
        scores |= {f"{name}/{baseline}": area for name, area in zip(REMOVAL_SCORES, areas, strict=True)}
    is_object = batch.labels == OBJECT
    is_scored = is_object | (batch.labels == BACKGROUND)
    localization = (pointing_game(heat, is_object, is_scored), *segmentation_scores(heat, is_object, is_scored))
    scores |= dict(zip(LOCALIZATION_SCORES, localization, strict=True))
    return {name: np.asarray(values)[: len(batch.items)] for name, values in scores.items()}


def score_batches(
    methods: Mapping[str, MakeMaps],
    model: VisionTransformer,
    batches: Iterable[MaskedBatch],
    baselines: tuple[str, ...],
    *,
    total: int,
) -> Iterator[tuple[np.ndarray, Scores]]:
    """Yield the positions of the images of each batch, and their scores for each method as "method/score".

    SECONDS is the time of an image's map without compiling; NO_INFORMATION whether the map carries none.
    total: the number of images, for the progress.
    """
    compiled: set[str] = set()
    with open_progress(total, unit="images", description="scored") as progress:
        for batch in batches:
            scores: Scores = {}
            for name, make_maps in methods.items():
                if name not in compiled:
                    jax.block_until_ready(_make_maps(make_maps, batch))
                    compiled.add(name)
                scores |= {f"{name}/{key}": rows for key, rows in _score(name, make_maps, model, batch, baselines)}
            yield batch.items, scores
            progress.update(len(batch.items))


def _make_maps(make_maps: MakeMaps, batch: MaskedBatch) -> Any:
    number = int(batch.items[0]) // len(batch.targets)  # among all batches, whichever process scores them
    return make_maps(batch.images, batch.targets, number)


def _score(
    name: str, make_maps: MakeMaps, model: VisionTransformer, batch: MaskedBatch, baselines: tuple[str, ...]
) -> Iterator[tuple[str, np.ndarray]]:
    count, start = len(batch.items), time.monotonic()
    maps = jax.block_until_ready(_make_maps(make_maps, batch))
    yield SECONDS, np.full(count, (time.monotonic() - start) / len(batch.targets))
    yield NO_INFORMATION, np.array([bool(uninformative_reason(heat)) for heat in np.asarray(maps)[:count]])
    is_pixelwise = name in METHODS and METHODS[name].is_pixelwise
    yield from score_maps(model, batch, maps, baselines, is_pixelwise=is_pixelwise).items()


def split_methods(scores: Scores) -> dict[str, Scores]:
    """Return the scores of all images by method, from score_batches's; SECONDS as the mean over the images."""
    results: dict[str, Scores] = {}
    for key, values in scores.items():
        name, _, score = key.partition("/")
        results.setdefault(name, {})[score] = values.mean(keepdims=True) if score == SECONDS else values
    return results


def bootstrap_interval(values: np.ndarray) -> tuple[float, float, float]:
    """Return the mean over images and its 95 % bootstrap percentile interval: (mean, lower, upper); NaN if any is."""
    from scipy.stats import bootstrap  # slow to import, and only this function needs it

    mean = float(values.mean())
    if len(values) < 2 or math.isnan(mean):
        return mean, mean, mean
    rng = np.random.default_rng(0)
    interval = bootstrap((values,), np.mean, n_resamples=2000, method="percentile", rng=rng).confidence_interval
    return mean, float(interval.low), float(interval.high)


def format_scores(results: dict[str, dict[str, np.ndarray]], baselines: tuple[str, ...]) -> str:
    """Return a Markdown table: for each method every score's mean and 95 % interval, and its seconds per image."""
    columns = [f"{name}/{baseline}" for baseline in baselines for name in REMOVAL_SCORES]
    columns += list(LOCALIZATION_SCORES)
    heads = [f"{column} {'down' if column.split('/')[0] in LOWER_IS_BETTER else 'up'}" for column in columns]
    lines = ["| method | " + " | ".join(heads) + " | s/image |", "|---" * (len(columns) + 2) + "|"]
    for name, scores in results.items():
        cells = ["{:.3f} [{:.3f}, {:.3f}]".format(*bootstrap_interval(scores[column])) for column in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {scores[SECONDS][0]:.4f} |")
    return "\n".join(lines)
