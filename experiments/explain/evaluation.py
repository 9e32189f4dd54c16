"""python -m experiments.explain MODEL IMAGE... --evaluate --masks FOLDER: faithfulness of the methods and controls."""

import argparse
import json
from pathlib import Path

import numpy as np

from experiments.explain.flags import parse_method_options, parse_methods
from experiments.explain.masked_images import find_mask, make_batches, open_masked_image
from experiments.explain.scores import format_scores, make_methods, score_method
from vit_jax import InputError, VisionTransformer
from vit_jax.data.folder import image_files
from vit_jax.explain import check_method_options
from vit_jax.files import atomic_write


def evaluate_faithfulness(model: VisionTransformer, files: list[Path], args: argparse.Namespace) -> int:
    """Score the methods on images with masks. Print the table, and write it and all scores to --out."""
    masks = Path(args.masks)
    if not masks.is_dir():
        raise InputError(f"{args.masks}: no such folder")
    image_files(masks)
    options = check_method_options(model, parse_method_options(args))
    names = parse_methods(args.method or ["all"])
    baselines = tuple(dict.fromkeys(args.baseline or ["mean"]))
    masked = [open_masked_image(file, find_mask(file, masks), model) for file in files]
    batches = make_batches(model, masked, args.batch_size)
    results = {
        name: score_method(name, make_maps, model, batches, baselines)
        for name, make_maps in make_methods(model, names, options).items()
    }
    table = format_scores(results, baselines)
    print(table)
    print(f"{len(masked)} images; of the predicted class; in brackets the 95 % bootstrap interval of the mean")
    if args.out:
        _write_results(Path(args.out), files, results, table)
    return 0


def _write_results(folder: Path, files: list[Path], results: dict[str, dict[str, np.ndarray]], table: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    scores = {name: {key: values.tolist() for key, values in result.items()} for name, result in results.items()}
    with atomic_write(folder / "faithfulness.json") as temporary:
        temporary.write_text(json.dumps({"images": [str(file) for file in files], "scores": scores}) + "\n")
    with atomic_write(folder / "faithfulness.md") as temporary:
        temporary.write_text(table + "\n")
    print(f"written to {folder}/: faithfulness.md, faithfulness.json")
