"""python -m experiments.explain MODEL IMAGE... --evaluate --masks FOLDER: faithfulness of the methods and controls."""

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from experiments.common.parts import compute_parts, hash_listing
from experiments.common.pictures import ImagePath
from experiments.common.team import SharedFolder
from experiments.explain.flags import check_method_flags, parse_method_options, select_methods
from experiments.explain.masked_images import iterate_batches, open_masked_images
from experiments.explain.scores import (
    NO_INFORMATION,
    Scores,
    format_scores,
    make_methods,
    score_batches,
    split_methods,
)
from vit_jax import InputError, VisionTransformer
from vit_jax.checkpoint import hash_weights
from vit_jax.data.folder import image_files
from vit_jax.explain import check_method_options
from vit_jax.files import atomic_write

SCORE_FILES = ("faithfulness.json", "faithfulness.md")


def evaluate_faithfulness(
    model: VisionTransformer, paths: list[ImagePath], args: argparse.Namespace, shared: SharedFolder | None
) -> None:
    """Score the methods on images with masks. Print the table, and write it and all scores to --out.

    shared: --out with the processes that divide the images, of which the first one prints and writes; None without it.
    """
    masks = Path(args.masks)
    if not masks.is_dir():
        raise InputError(f"{args.masks}: no such folder")
    mask_files = image_files(masks)
    if not model.config.num_classes:
        raise InputError("--evaluate scores maps by the predicted class, and the model has no classification head")
    options = check_method_options(model, parse_method_options(args))
    names = select_methods(args.method, model.config, default=["all"], scored=True)
    check_method_flags(args, names)
    baselines = tuple(dict.fromkeys(args.baseline or ["mean"]))
    scored, masked = open_masked_images(paths, masks, model)
    methods = make_methods(model, names, options)

    def score(items: np.ndarray) -> Iterator[tuple[np.ndarray, Scores]]:
        batches = iterate_batches(model, masked, items, args.batch_size)
        return score_batches(methods, model, batches, baselines, total=len(items))

    settings = {
        "model": hash_weights(model), "config": asdict(model.config), "methods": list(methods),
        "options": asdict(options), "baselines": baselines, "batch_size": args.batch_size,
        "images": hash_listing([*(path.file for path in scored), *mask_files]),
    }  # fmt: skip
    scores = compute_parts(shared, settings, count=len(masked), batch_size=args.batch_size, compute=score)
    if scores is None:
        return
    results = split_methods(scores)
    uninformative = {name: scores.pop(NO_INFORMATION) for name, scores in results.items()}
    table = format_scores(results, baselines)
    print(table)
    for name, flags in uninformative.items():
        if flags.any():
            print(f"{name}: {flags.sum()} of {len(flags)} maps carry no information (all zero, constant or not finite)")
    print(f"{len(masked)} images; of the predicted class; in brackets the 95 % bootstrap interval of the mean")
    if args.out:
        stored = {"images": [str(path.file) for path in scored], "scores": _to_lists(results)}
        no_information = {name: flags.tolist() for name, flags in uninformative.items()}
        _write_results(Path(args.out), stored | {"no_information": no_information}, table)


def _to_lists(results: dict[str, dict[str, np.ndarray]]) -> dict[str, dict[str, list[float]]]:
    return {name: {key: values.tolist() for key, values in result.items()} for name, result in results.items()}


def _write_results(folder: Path, stored: dict[str, Any], table: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    scores_file, table_file = (folder / name for name in SCORE_FILES)
    with atomic_write(scores_file) as temporary:
        temporary.write_text(json.dumps(stored) + "\n")
    with atomic_write(table_file) as temporary:
        temporary.write_text(table + "\n")
    print(f"written to {folder}/: {table_file.name}, {scores_file.name}")
