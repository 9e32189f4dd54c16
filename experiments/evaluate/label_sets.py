"""python -m experiments.evaluate of a model that gives an image a set of labels: average precisions."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments.evaluate.result import RESULT, write_result
from vit_jax.train.objective import average_precisions, mean_average_precision


def evaluate_label_sets(labels: np.ndarray, logits: np.ndarray, names: Sequence[str], out: Path | None) -> None:
    """Print the average precision of each class and their mean, and write them to evaluation.json in a folder.

    labels: which classes each image has, [n, C]. logits: [n, C].
    Raises InputError if no image has a label.
    """
    mean, precisions = mean_average_precision(labels, logits), average_precisions(labels, logits)
    predicted = logits > 0  # a probability above THRESHOLD, see vit_jax/prediction.py
    counts, num_predicted, num_correct = (which.sum(axis=0) for which in (labels, predicted, labels & predicted))
    width = max(5, *map(len, names))
    print(f"{'class':{width}}  images  average precision  predicted  correct")
    for name, count, precision, total, hit in zip(names, counts, precisions, num_predicted, num_correct, strict=True):
        shown = "-" if np.isnan(precision) else f"{precision:.4f}"
        print(f"{name:{width}}  {count:6}  {shown:>17}  {total:9}  {hit:7}")
    print(f"mAP {mean:.4f} ({len(labels)} images, {(counts > 0).sum()} of {len(names)} classes)")
    if out is None:
        return
    values = [None if np.isnan(value) else float(value) for value in precisions]
    result = {"map": mean, "images": len(labels), "class_names": list(names), "average_precision": values,
              "class_images": counts.tolist()}  # fmt: skip
    write_result(out, result)
    print(f"written to {out}/: {RESULT}")
