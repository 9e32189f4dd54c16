"""python -m experiments.evaluate MODEL --data DATA: accuracy, accuracy of each class, and the confusion matrix.

Of a model that gives an image a set of labels: the average precision of each class, and their mean (mAP).

python -m experiments.evaluate MODEL --data DATA --probe knn|linear: the same by the features of a backbone.

python -m experiments.evaluate --captions FILE --references FILE: BLEU, ROUGE-L and CIDEr-D of captions.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from experiments.common import runtime
from experiments.common.flags import add_batch_size_flag, add_flags, read_flags
from experiments.common.models import find_image_model, model_files, open_model
from experiments.common.parts import Arrays, compute_parts, hash_files, hash_listing
from experiments.common.precision import add_dtype_flag, cast_model
from experiments.common.team import SharedFolder, check_alone, share_folder
from experiments.evaluate import captions as evaluate_captions
from experiments.evaluate.label_sets import evaluate_label_sets
from experiments.evaluate.probe import PROBES, check_probe_data, evaluate_probe
from experiments.evaluate.result import RESULT, write_result
from vit_jax import InputError, VisionTransformer
from vit_jax.cli import Parser, positive_int, program_name
from vit_jax.data.dataset import Dataset, Split, join_splits
from vit_jax.data.datasets import DATA_HELP, is_image_folder, open_dataset
from vit_jax.data.folder import open_folder_split
from vit_jax.data.unicode_names import compose_name
from vit_jax.errors import one_line_errors
from vit_jax.outputs import check_apart, check_out_folder, check_outside
from vit_jax.plot import FigureFormat
from vit_jax.prediction import is_multi_label
from vit_jax.probe import NEIGHBORS
from vit_jax.saved_folder import METRICS
from vit_jax.train.distributed import ProcessOptions
from vit_jax.train.run_data import reopen_data
from vit_jax.train.run_folder import read_run_config

FIGURE = "confusion"  # its suffix is the format


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=program_name("experiments.evaluate"), description="Accuracy on labelled images, or scores of captions."
    )
    parser.add_argument("model", nargs="?", help="a saved model, or a run's folder; none with --captions")
    parser.add_argument("--data", help=f"{DATA_HELP} (default: the run's own)")
    parser.add_argument("--data-dir", help="folder of downloads and prepared tfds sets")
    parser.add_argument("--split", choices=("val", "train"), default="val")
    parser.add_argument(
        "--out", help="folder for evaluation.json and, for single labels, a figure of the confusion matrix"
    )
    add_batch_size_flag(parser, 16)
    add_dtype_flag(parser)
    add_flags(parser, FigureFormat, "figure")
    add_flags(parser, ProcessOptions, "several processes (detected under SLURM, Open MPI and Kubernetes)")
    group = parser.add_argument_group("probe of a backbone")
    group.add_argument(
        "--probe", choices=PROBES, help="classify by the features of the training images, in place of the model's head"
    )
    group.add_argument("--neighbors", type=positive_int, metavar="K", help=f"of --probe knn (default: {NEIGHBORS})")
    evaluate_captions.add_flags(parser)
    return parser


def _open_split(args: argparse.Namespace, *, multi_label: bool) -> tuple[Split, tuple[str, ...]]:
    """Open the labelled images that --data names, or else those of the run, and return them with their class names.

    multi_label: whether the model gives an image a set of labels. Raises InputError if the images' labels differ.
    """
    if args.data is not None and is_image_folder(args.data) and not multi_label:
        return open_folder_split(args.data, args.split)
    data = _open_data(args, multi_label=multi_label)
    if data.train.is_multi_label != multi_label:
        raise InputError(
            f"{args.data}: has images with several labels, and {args.model} gives one; choose another model"
        )
    return getattr(data, args.split), data.class_names


def _open_data(args: argparse.Namespace, *, multi_label: bool = False) -> Dataset:
    """Open the data set that --data names, or else that of the run."""
    if args.data is not None:
        return open_dataset(args.data, data_dir=args.data_dir, multi_label=multi_label)
    run = Path(args.model.name)
    if (run / METRICS).is_file():
        remedy = "put it back as it was, or name images with --data"
        return reopen_data(run, read_run_config(run), data_dir=args.data_dir, remedy=remedy).data
    raise InputError(f"{args.model}: not a run, so it has no images of its own; give --data")


def model_labels(labels: np.ndarray, names: Sequence[str], model_names: Sequence[str], source: str) -> np.ndarray:
    """Convert labels that index `names`, or sets of them [n, C], into those of the model's class names.

    Raises InputError naming the model's `source` for a class that the model does not have.
    """
    if not model_names:
        raise InputError(
            f"{source}: has no class names to compare with the images' classes; fine-tune it first, or state them "
            "(python -m weights_convert convert --class-names FILE)"
        )
    known, names = ([compose_name(name) for name in part] for part in (model_names, names))
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InputError(f"{source}: does not know the class {unknown[0]}; it knows {', '.join(model_names[:8])} ...")
    indices = np.array([known.index(name) for name in names], np.int32)
    if labels.ndim == 1:
        return indices[labels]
    sets = np.zeros((len(labels), len(known)), np.bool_)
    sets[:, indices] = labels
    return sets


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


def _write(args: argparse.Namespace, accuracy: float, counts: np.ndarray, names: Sequence[str], *, title: str) -> None:
    """Write evaluation.json and a figure of the confusion matrix into --out."""
    from experiments.common.plots import plot_confusion

    folder, figures = Path(args.out), read_flags(args, FigureFormat)
    result = {"accuracy": accuracy, "images": int(counts.sum()), "class_names": names, "confusion": counts.tolist()}
    write_result(folder, result)
    figure = f"{FIGURE}{figures.suffix}"
    plot_confusion(counts, names, folder / figure, title=title, dpi=figures.dpi)
    print(f"written to {folder}/: {figure}, {RESULT}")


def _compute(
    args: argparse.Namespace, model: VisionTransformer, split: Split, field: str, shared: SharedFolder | None
) -> np.ndarray | None:
    """Return an output of the model, a field of Outputs, for every image; None to all processes but the first.

    Raises InputError naming an image that cannot be read.
    """
    from vit_jax.data.loader import CachedImages
    from vit_jax.inference import iterate_outputs

    def compute(items: np.ndarray) -> Iterator[tuple[np.ndarray, Arrays]]:
        images = CachedImages(split.take(items), model.config.image_preprocess, budget=0)
        for batch in iterate_outputs(model, images, args.batch_size, on_corrupt="raise"):
            yield items[batch.indices], {field: getattr(batch, field)}

    settings = {"model": hash_files(model_files(args.model)), "images": hash_listing(split.names), "output": field,
                "dtype": args.dtype, "batch_size": args.batch_size}  # fmt: skip
    outputs = compute_parts(shared, settings, count=len(split), batch_size=args.batch_size, compute=compute)
    return None if outputs is None else outputs[field]


def _check_probe(args: argparse.Namespace) -> None:
    if args.split != "val":
        raise InputError("--probe fits the training images and classifies the validation images; leave out --split")
    if args.neighbors is not None and args.probe != "knn":
        raise InputError("--neighbors is an option of --probe knn; leave it out")


def _run_probe(args: argparse.Namespace, shared: SharedFolder | None) -> None:
    """Fit a probe to the training images, and print how well it classifies the validation images."""
    from sklearn.metrics import confusion_matrix

    data = _open_data(args)
    check_probe_data(data)
    model = cast_model(open_model(args.model)[0], args.dtype)
    features = _compute(args, model, join_splits(data.train, data.val), "features", shared)
    if features is None:
        return
    probe = evaluate_probe(args.probe, features, data, neighbors=args.neighbors or NEIGHBORS)
    counts = confusion_matrix(data.val.labels, probe.predicted, labels=range(len(data.class_names)))
    _print_table(counts, data.class_names)
    print("\n".join(probe.lines))
    if args.out:
        accuracy = float((data.val.labels == probe.predicted).mean())
        _write(args, accuracy, counts, data.class_names, title=probe.lines[-1])


def _evaluate_head(args: argparse.Namespace, shared: SharedFolder | None) -> None:
    """Compare the labels that a model's head predicts with those of the images."""
    model, card = open_model(args.model)
    if not model.config.num_classes:
        raise InputError(f"{args.model}: has no classification head; give --probe {' or '.join(PROBES)}")
    split, names = _open_split(args, multi_label=is_multi_label(model.config))
    labels = model_labels(split.labels, names, card.class_names, str(args.model))
    logits = _compute(args, cast_model(model, args.dtype), split, "logits", shared)
    if logits is None:
        return
    if is_multi_label(model.config):
        evaluate_label_sets(labels, logits, card.class_names, Path(args.out) if args.out else None)
    else:
        _evaluate_labels(labels, logits, card.class_names, args)


def _evaluate_labels(labels: np.ndarray, logits: np.ndarray, names: Sequence[str], args: argparse.Namespace) -> None:
    """Print the accuracy of each class and of all images, and write them with the confusion matrix to --out."""
    from sklearn.metrics import confusion_matrix

    predicted = logits.argmax(axis=1)
    counts = confusion_matrix(labels, predicted, labels=range(len(names)))
    accuracy = float((labels == predicted).mean())
    _print_table(counts, names)
    print(f"accuracy {accuracy:.4f} ({(labels == predicted).sum()} of {len(labels)} images)")
    if args.out:
        _write(args, accuracy, counts, names, title=f"accuracy {accuracy:.4f}")


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
    args.model = find_image_model(args.model)
    if args.out:
        data = [args.data] if args.data is not None and Path(args.data).is_dir() else []
        check_out_folder(args.out)
        check_outside(args.out, data)
        figure = f"{FIGURE}{read_flags(args, FigureFormat).suffix}"
        check_apart([Path(args.out) / name for name in (RESULT, figure)], model_files(args.model))
    run = _evaluate_head
    if args.probe is not None or args.neighbors is not None:
        _check_probe(args)
        run = _run_probe
    processes = read_flags(args, ProcessOptions)
    if args.out is None:
        check_alone(processes)
        run(args, None)
    else:
        with share_folder(Path(args.out), processes, "evaluates into it") as shared:
            run(args, shared)
    return 0


if __name__ == "__main__":
    sys.exit(main())
