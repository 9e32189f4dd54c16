"""python -m experiments.evaluate MODEL --data DATA: accuracy, accuracy by class, and the confusion matrix.

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
        prog="python -m experiments.evaluate", description="Accuracy on labelled pictures, or captions' scores."
    )
    parser.add_argument("model", nargs="?", help="a saved model, or a run's folder; none with --captions")
    parser.add_argument("--data", help=f"{DATA_HELP} (default: the run's own)")
    parser.add_argument("--data-dir", help="where downloads and prepared tfds sets lie")
    parser.add_argument("--split", choices=("val", "train"), default="val")
    parser.add_argument("--out", help="folder for evaluation.json and confusion.png")
    parser.add_argument("--batch-size", type=positive_int, default=16)
    evaluate_captions.add_flags(parser)
    return parser


def _open_split(args: argparse.Namespace) -> tuple[Split, tuple[str, ...]]:
    """The labelled pictures and their class names, from --data or the run that the model came from."""
    if args.data is not None and Path(args.data).is_dir():
        return open_folder_split(args.data, args.split)
    if args.data is not None:
        data = open_dataset(args.data, data_dir=args.data_dir)
    elif (Path(args.model) / "metrics.jsonl").is_file():
        config = run.read_run_config(Path(args.model))
        data_dir = args.data_dir or config.data_dir
        data = open_dataset(config.data, data_dir=data_dir, val_fraction=config.val_fraction, seed=config.recipe.seed)
    else:
        raise InputError(f"{args.model}: not a run, so there are no images of its own; give --data")
    return getattr(data, args.split), data.class_names


def model_labels(labels: np.ndarray, names: Sequence[str], model_names: Sequence[str], where: str) -> np.ndarray:
    """Labels into `names` as labels into the model's classes. Raises InputError for a class it does not know."""
    if not model_names:
        raise InputError(f"{where}: has no class names to hold the images' classes against; fine-tune it first")
    unknown = [name for name in names if name not in model_names]
    if unknown:
        raise InputError(f"{where}: does not know the class {unknown[0]}; it knows {', '.join(model_names[:8])} ...")
    return np.array([model_names.index(name) for name in names], np.int32)[labels]


def _print_table(counts: np.ndarray, names: Sequence[str]) -> None:
    width = max(5, *map(len, names))
    print(f"{'class':{width}}  images  correct  accuracy  most often taken for")
    for row, name in enumerate(names):
        total, right = counts[row].sum(), counts[row, row]
        others = counts[row].copy()
        others[row] = 0
        taken = f"{names[others.argmax()]} ({others.max()})" if others.max() else "-"
        share = f"{right / total:8.4f}" if total else "       -"
        print(f"{name:{width}}  {total:6}  {right:7}  {share}  {taken}")


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """Run the command: 0 done, 2 a wrong input."""
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

    from experiments.common.inference import compute_logits
    from experiments.common.plots import plot_confusion
    from vit_jax.data.loader import CachedImages

    assert model.config.preprocess is not None
    answers = compute_logits(model, CachedImages(split, model.config.preprocess, budget=0), args.batch_size).argmax(
        axis=1
    )
    counts = np.zeros((model.config.num_classes,) * 2, np.int64)
    np.add.at(counts, (labels, answers), 1)
    accuracy = float((labels == answers).mean())
    _print_table(counts, card.class_names)
    print(f"accuracy {accuracy:.4f} ({(labels == answers).sum()} of {len(labels)} images)")
    if args.out:
        result = {"accuracy": accuracy, "images": len(labels), "class_names": card.class_names}
        folder = Path(args.out)
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(folder / "evaluation.json") as path:
            path.write_text(json.dumps(result | {"confusion": counts.tolist()}) + "\n")
        plot_confusion(counts, card.class_names, folder / "confusion.png", title=f"accuracy {accuracy:.4f}")
        print(f"written to {args.out}/: confusion.png, evaluation.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
