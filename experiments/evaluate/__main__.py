"""python -m experiments.evaluate MODEL --data DATA: accuracy, accuracy of each class, and the confusion matrix.

python -m experiments.evaluate --captions FILE --references FILE: BLEU, ROUGE-L and CIDEr-D of captions.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments.common import runtime
from experiments.common.models import open_model
from experiments.common.precision import add_dtype_flag, cast_model
from experiments.evaluate import captions as evaluate_captions
from vit_jax import InputError
from vit_jax.cli import Parser, positive_int
from vit_jax.data.dataset import Split
from vit_jax.data.datasets import DATA_HELP, open_dataset
from vit_jax.data.folder import open_folder_split
from vit_jax.errors import one_line_errors
from vit_jax.files import atomic_write
from vit_jax.train import run_folder as run


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m experiments.evaluate", description="Accuracy on labelled images, or scores of captions."
    )
    parser.add_argument("model", nargs="?", help="a saved model, or a run's folder; none with --captions")
    parser.add_argument("--data", help=f"{DATA_HELP} (default: the run's own)")
    parser.add_argument("--data-dir", help="folder of downloads and prepared tfds sets")
    parser.add_argument("--split", choices=("val", "train"), default="val")
    parser.add_argument("--out", help="folder for evaluation.json and confusion.png")
    parser.add_argument("--batch-size", type=positive_int, default=16)
    add_dtype_flag(parser)
    evaluate_captions.add_flags(parser)
    return parser


def _open_split(args: argparse.Namespace) -> tuple[Split, tuple[str, ...]]:
    """Open the labelled images that --data names, or else those of the run, and return them with their class names."""
    if args.data is not None and Path(args.data).is_dir():
        return open_folder_split(args.data, args.split)
    if args.data is not None:
        data = open_dataset(args.data, data_dir=args.data_dir)
    elif (Path(args.model) / "metrics.jsonl").is_file():
        config = run.read_run_config(Path(args.model))
        data_dir = args.data_dir or config.data_dir
        data = open_dataset(config.data, data_dir=data_dir, val_fraction=config.val_fraction, seed=config.recipe.seed)
    else:
        raise InputError(f"{args.model}: not a run, so it has no images of its own; give --data")
    return getattr(data, args.split), data.class_names


def model_labels(labels: np.ndarray, names: Sequence[str], model_names: Sequence[str], source: str) -> np.ndarray:
    """Convert labels that index `names` into labels that index the model's class names.

    Raises InputError naming the model's `source` for a class that the model does not have.
    """
    if not model_names:
        raise InputError(
            f"{source}: has no class names to compare with the images' classes; fine-tune it first, or state them "
            "(python -m weights_convert convert --class-names FILE)"
        )
    unknown = [name for name in names if name not in model_names]
    if unknown:
        raise InputError(f"{source}: does not know the class {unknown[0]}; it knows {', '.join(model_names[:8])} ...")
    return np.array([model_names.index(name) for name in names], np.int32)[labels]


def _print_table(counts: np.ndarray, names: Sequence[str]) -> None:
    """Print images, accuracy and most frequent mistake of each class, from a confusion matrix [C, C]."""
    width = max(5, *map(len, names))
    print(f"{'class':{width}}  images  correct  accuracy  most often confused with")
    mistakes = counts * (1 - np.eye(len(names), dtype=counts.dtype))
    for label, name in enumerate(names):
        total, correct, other = counts[label].sum(), counts[label, label], mistakes[label].argmax()
        accuracy = f"{correct / total:8.4f}" if total else "       -"
        mistake = f"{names[other]} ({mistakes[label, other]})" if mistakes[label, other] else "-"
        print(f"{name:{width}}  {total:6}  {correct:7}  {accuracy}  {mistake}")


def _write(folder: Path, accuracy: float, counts: np.ndarray, names: Sequence[str]) -> None:
    """Write evaluation.json and confusion.png into a folder."""
    from experiments.common.plots import plot_confusion

    folder.mkdir(parents=True, exist_ok=True)
    result = {"accuracy": accuracy, "images": int(counts.sum()), "class_names": names, "confusion": counts.tolist()}
    with atomic_write(folder / "evaluation.json") as path:
        path.write_text(json.dumps(result) + "\n")
    plot_confusion(counts, names, folder / "confusion.png", title=f"accuracy {accuracy:.4f}")


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Run the command: 0 for success, 2 for a wrong input."""
    parser = _parser()
    args = parser.parse_args(argv)
    if args.captions is not None or args.references is not None:
        return evaluate_captions.evaluate(args)
    if args.model is None:
        parser.error("give a model, or --captions with --references")
    runtime.configure()
    split, names = _open_split(args)
    model, card = open_model(args.model)
    labels = model_labels(split.labels, names, card.class_names, args.model)

    from sklearn.metrics import confusion_matrix

    from vit_jax.data.loader import CachedImages
    from vit_jax.inference import compute_logits

    images = CachedImages(split, model.config.image_preprocess, budget=0)
    computed = compute_logits(cast_model(model, args.dtype), images, args.batch_size, on_corrupt="raise")
    predicted = computed.logits.argmax(axis=1)
    counts = confusion_matrix(labels, predicted, labels=range(model.config.num_classes))
    accuracy = float((labels == predicted).mean())
    _print_table(counts, card.class_names)
    print(f"accuracy {accuracy:.4f} ({(labels == predicted).sum()} of {len(labels)} images)")
    if args.out:
        _write(Path(args.out), accuracy, counts, card.class_names)
        print(f"written to {args.out}/: confusion.png, evaluation.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
