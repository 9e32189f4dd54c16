"""python -m experiments.explain MODEL IMAGES --evaluate --masks FOLDER: each method's faithfulness, and controls'."""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float
from PIL import Image

from experiments.explain.flags import parse_method_options, parse_methods
from vit_jax import InputError, VisionTransformer, pointing_game, segmentation_scores, upsample
from vit_jax.data.batches import pad_batch_to
from vit_jax.data.decode import open_rgb
from vit_jax.data.folder import image_files
from vit_jax.explain.faithfulness import (
    both_removal_curves,
    centred_map,
    insertion_deletion_from_curves,
    perturbation_auc_from_curves,
    random_map,
)
from vit_jax.explain.methods import MethodOptions, check_method_options, compile_method
from vit_jax.files import atomic_write

OBJECT, BACKGROUND = 1, 2
HIGHER_IS_BETTER = {"insertion": True, "deletion": False, "positive": False, "negative": True, "pointing": True,
                    "iou": True, "pixel accuracy": True, "AP": True}  # fmt: skip
MAP_SCORES = ("pointing", "iou", "pixel accuracy", "AP")


@dataclass(frozen=True)
class MaskedExample:
    """pixels: uint8 [h, w, 3]; labels: the mask at the same size, [h, w]."""

    pixels: np.ndarray
    labels: np.ndarray


def mask_for(image: Path, masks: Path) -> Path:
    """The mask named like a picture. Raises InputError when there is none."""
    found = [masks / f"{image.stem}{end}" for end in (".png", ".bmp", ".gif", ".tif", ".tiff")]
    path = next((path for path in found if path.is_file()), None)
    if path is None:
        raise InputError(f"{masks}: no mask for {image.name}; {image.stem}.png is looked for")
    return path


def open_example(image: Path, mask: Path, model: VisionTransformer) -> MaskedExample:
    """A picture and its mask as the model sees them. Raises InputError for sizes that differ or a mask that is none."""
    preprocess = model.config.image_preprocess
    picture = open_rgb(image)
    try:
        with Image.open(mask) as opened:
            labels = np.asarray(opened.convert("L") if opened.mode not in ("L", "P") else opened)
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"{mask}: not a readable image ({error})") from error
    if labels.shape != (picture.height, picture.width):
        raise InputError(
            f"{mask}: {labels.shape[1]}x{labels.shape[0]}, but {image.name} is {picture.width}x{picture.height}"
        )
    if not set(np.unique(labels)) <= {1, 2, 3}:
        raise InputError(f"{mask}: a mask holds 1 (object), 2 (background) and 3 (not counted), nothing else")
    sized = preprocess.resize(Image.fromarray(labels.astype(np.uint8)), kernel="nearest")
    return MaskedExample(preprocess.resize(picture), sized[..., 0])


def _scorer(model: VisionTransformer, baselines: tuple[str, ...]) -> Callable[..., dict[str, Any]]:
    """(images, maps [B, gh, gw] or [B, h, w], targets, labels) -> every score, [B] each, by name and baseline."""
    size, patch = model.config.image_size, model.config.patch_size

    def scores(images: Any, maps: Float[Array, "b gh gw"], targets: Any, labels: np.ndarray) -> dict[str, Any]:
        heat = upsample(maps, size)
        b, h, w = heat.shape
        if maps.shape[1:] == tuple(size):  # by pixel: a patch's score is its pixels' mean
            maps = maps.reshape(b, h // patch[0], patch[0], w // patch[1], patch[1]).mean(axis=(2, 4))
        flat = maps.reshape(b, -1)
        result: dict[str, Any] = {}
        for baseline in baselines:
            best, worst = both_removal_curves(model, images, flat, targets, baseline=baseline)
            areas = (
                insertion_deletion_from_curves(best, worst)._asdict()
                | perturbation_auc_from_curves(best, worst)._asdict()
            )
            result |= {f"{name}/{baseline}": value for name, value in areas.items()}
        inside, valid = labels == OBJECT, (labels == OBJECT) | (labels == BACKGROUND)
        segmented = segmentation_scores(heat, inside, valid)
        values = (pointing_game(heat, inside, valid), *segmented)
        return result | dict(zip(MAP_SCORES, values, strict=True))

    return scores


def interval(values: np.ndarray, *, resamples: int = 2000, seed: int = 0) -> tuple[float, float, float]:
    """(mean, lower, upper): the mean and its 95 % bootstrap percentile interval over images."""
    rng = np.random.default_rng(seed)
    means = values[rng.integers(0, len(values), (resamples, len(values)))].mean(axis=1)
    return float(values.mean()), float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def _makers(model: VisionTransformer, names: tuple[str, ...], options: MethodOptions) -> dict[str, Callable[..., Any]]:
    """Every method, and the two controls, as (images, targets [B], number of the batch) -> maps [B, gh, gw]."""
    grid = model.config.grid
    n = math.prod(grid)

    def wrapped(name: str) -> Callable[..., Any]:
        function = compile_method(name, options)
        return lambda images, targets, number: function(model, images, targets[:, None])[:, 0]

    def chance(images: Any, targets: Any, number: int) -> Any:
        key = jax.random.fold_in(jax.random.key(options.seed), number)
        return random_map(key, len(images), n).reshape(-1, *grid)

    makers = {name: wrapped(name) for name in names}
    return makers | {
        "random (control)": chance,
        "centred (control)": lambda images, targets, number: centred_map(len(images), grid).reshape(-1, *grid),
    }


def _score_method(
    maker: Callable[..., Any], batches: list[tuple[Any, ...]], scorer: Callable[..., dict[str, Any]], name: str
) -> dict[str, np.ndarray]:
    """Every image's scores for one method, and the seconds its map took (compilation aside)."""
    parts: list[dict[str, np.ndarray]] = []
    seconds = 0.0
    jax.block_until_ready(maker(batches[0][0], batches[0][1], 0))
    shown = began = time.monotonic()
    for number, (images, targets, labels, count) in enumerate(batches):
        start = time.monotonic()
        maps = jax.block_until_ready(maker(images, targets, number))
        seconds += time.monotonic() - start
        parts.append({k: np.asarray(v)[:count] for k, v in scorer(images, maps, targets, labels).items()})
        if (now := time.monotonic()) - shown > 10:
            shown = now
            left = (now - began) / (number + 1) * (len(batches) - number - 1)
            print(f"{name}: batch {number + 1}/{len(batches)}, {left:.0f} s left", file=sys.stderr, flush=True)
    images_seen = sum(batch[0].shape[0] for batch in batches)
    merged = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    return merged | {"seconds": np.array([seconds / images_seen])}


def _batches(model: VisionTransformer, examples: list[MaskedExample], batch_size: int) -> list[tuple[Any, ...]]:
    """(normalised images, predicted classes, mask labels, how many count), the last batch filled up."""
    normalize = model.config.image_preprocess.normalize
    prepare = jax.jit(lambda pixels: normalize(pixels.astype("float32") / 255))
    predict = jax.jit(lambda m, x: m(x).argmax(axis=1))
    result = []
    for start in range(0, len(examples), batch_size):
        part = examples[start : start + batch_size]
        padded, _ = pad_batch_to(min(batch_size, len(examples)), part, part[-1])
        images = prepare(np.stack([example.pixels for example in padded]))
        targets = np.asarray(predict(model, images))
        result.append((images, targets, np.stack([example.labels for example in padded]), len(part)))
    return result


def table(results: dict[str, dict[str, np.ndarray]], baselines: tuple[str, ...]) -> str:
    """Markdown: for each method every score's mean and 95 % interval, and its seconds per image."""
    columns = [
        f"{name}/{baseline}" for baseline in baselines for name in ("insertion", "deletion", "positive", "negative")
    ]
    columns += list(MAP_SCORES)
    heads = [f"{c} {'up' if HIGHER_IS_BETTER[c.split('/')[0]] else 'down'}" for c in columns]
    lines = ["| method | " + " | ".join(heads) + " | s/image |", "|---" * (len(columns) + 2) + "|"]
    for name, scores in results.items():
        cells = ["{:.3f} [{:.3f}, {:.3f}]".format(*interval(scores[column])) for column in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {scores['seconds'][0]:.4f} |")
    return "\n".join(lines)


def evaluate_faithfulness(model: VisionTransformer, files: list[Path], args: argparse.Namespace) -> int:
    """Score the methods on pictures with masks; prints the table, and writes it with every number to --out."""
    masks = Path(args.masks)
    if not masks.is_dir():
        raise InputError(f"{args.masks}: no such folder")
    image_files(masks)
    options = check_method_options(model, parse_method_options(args))
    names = parse_methods(args.method or ["all"])
    baselines = tuple(dict.fromkeys(args.baseline or ["mean"]))
    examples = [open_example(file, mask_for(file, masks), model) for file in files]
    batches = _batches(model, examples, args.batch_size)
    scorer = _scorer(model, baselines)
    results = {}
    for name, maker in _makers(model, names, options).items():
        print(f"{name} ...", file=sys.stderr, flush=True)
        results[name] = _score_method(maker, batches, scorer, name)
    text = table(results, baselines)
    print(text)
    print(f"{len(examples)} images; the predicted class is explained; in brackets the mean's 95 % bootstrap interval")
    if args.out:
        folder = Path(args.out)
        folder.mkdir(parents=True, exist_ok=True)
        stored = {name: {key: values.tolist() for key, values in scores.items()} for name, scores in results.items()}
        with atomic_write(folder / "faithfulness.json") as beside:
            beside.write_text(json.dumps({"images": [str(file) for file in files], "scores": stored}) + "\n")
        with atomic_write(folder / "faithfulness.md") as beside:
            beside.write_text(text + "\n")
        print(f"written to {folder}/: faithfulness.md, faithfulness.json")
    return 0
