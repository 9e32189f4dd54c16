"""Predictions of many images: computed in parts, then merged into a CSV of labels and a .npz of features."""

import csv
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.common.parts import Arrays, Parts
from vit_jax import InputError, ModelCard, VisionTransformer
from vit_jax.data.dataset import Split
from vit_jax.data.table_rows import format_labels
from vit_jax.files import atomic_write
from vit_jax.prediction import THRESHOLD, is_multi_label, predicted_labels, probabilities


@dataclass(frozen=True)
class PredictionOutputs:
    """What to write.

    table:    CSV of the labels, or None.
    features: .npz of the pooled features, or None.
    top_k:    number of labels with their probabilities in the table; None for the best label alone, or for all labels
              above THRESHOLD of a model that gives an image a set of labels.
    """

    table: Path | None
    features: Path | None = None
    top_k: int | None = None


def predict_parts(
    model: VisionTransformer,
    files: Sequence[Path],
    parts: Parts,
    numbers: Sequence[int],
    outputs: PredictionOutputs,
    batch_size: int,
) -> None:
    """Predict the images of these parts and write each part. Unreadable images are left out and reported."""
    items = np.array([item for number in numbers for item in parts.items(number)], np.int64)
    parts.write(numbers, _compute(model, [files[item] for item in items], items, outputs, batch_size))


def _compute(
    model: VisionTransformer, files: Sequence[Path], items: np.ndarray, outputs: PredictionOutputs, batch_size: int
) -> Iterator[tuple[np.ndarray, Arrays]]:
    """Yield the items that could be read, and what the outputs need of each."""
    from vit_jax.data.loader import CachedImages
    from vit_jax.inference import iterate_outputs

    images = CachedImages(Split.from_files(files), model.config.image_preprocess, budget=0)
    for batch in iterate_outputs(model, images, batch_size, on_corrupt="skip"):
        arrays: Arrays = {}
        if outputs.table is not None:
            default = model.config.num_classes if is_multi_label(model.config) else 1
            labels = np.argsort(-batch.logits, axis=1, kind="stable")[:, : outputs.top_k or default]
            values = np.take_along_axis(np.asarray(probabilities(model.config, batch.logits)), labels, axis=1)
            arrays |= {"labels": labels.astype(np.int32), "probabilities": values}
        if outputs.features is not None:
            arrays["features"] = batch.features
        yield items[batch.indices], arrays


def merge_parts(parts: Parts, files: Sequence[Path], card: ModelCard, outputs: PredictionOutputs, *, root: Path) -> str:
    """Write the outputs from all parts, with paths below `root`. Return a line on what was written.

    card: of the model. Raises InputError if no image could be read.
    """
    readable = [item for items, _ in parts.read() for item in items.tolist()]
    if not readable:
        parts.remove()  # so that the images are tried again
        raise InputError(f"{root}: none of its {len(files)} images can be read")
    paths = [str(files[item].relative_to(root)) for item in readable]
    if outputs.features is not None:
        _write_features(outputs.features, parts, paths)
    if outputs.table is not None:
        _write_table(outputs.table, parts, paths, card, with_probabilities=outputs.top_k is not None)
    written = " and ".join(str(path) for path in (outputs.table, outputs.features) if path is not None)
    skipped = len(files) - len(readable)
    line = f"{written}: {len(readable)} predictions{f', {skipped} unreadable images skipped' if skipped else ''}"
    if outputs.table is None or not is_multi_label(card.config):
        return line
    shown = "" if outputs.top_k else f"; an image has all labels above {THRESHOLD:g}, separated by |"
    return f"{line}; every label has a probability of its own{shown}"


def _write_table(path: Path, parts: Parts, paths: Sequence[str], card: ModelCard, *, with_probabilities: bool) -> None:
    """Write a CSV with the header filename,label, or filename,label,probability,label_2,probability_2 and so on.

    Without probabilities, the label of a model with sets of labels is a cell that tables of labels accept.
    """
    names = class_names(card)
    rows = ((labels, values) for _, arrays in parts.read() for labels, values in _rows(arrays))
    with (
        atomic_write(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        for number, (name, (labels, values)) in enumerate(zip(paths, rows, strict=True)):
            if number == 0:
                writer.writerow(_header(len(labels), with_probabilities=with_probabilities))
            cells = [names[label] for label in labels]
            if with_probabilities:
                cells = [cell for pair in zip(cells, (f"{p:.6g}" for p in values), strict=True) for cell in pair]
            else:
                cells = [_format_label([cells[i] for i in predicted_labels(card.config, np.array(values))], card)]
            writer.writerow((name, *cells))


def _format_label(names: list[str], card: ModelCard) -> str:
    return format_labels(names) if is_multi_label(card.config) else names[0]


def _rows(arrays: Arrays) -> Iterator[tuple[list[int], list[float]]]:
    return zip(arrays["labels"].tolist(), arrays["probabilities"].tolist(), strict=True)


def _header(count: int, *, with_probabilities: bool) -> list[str]:
    if not with_probabilities:
        return ["filename", "label"]
    ends = ["", *(f"_{rank}" for rank in range(2, count + 1))]
    return ["filename", *(f"{column}{end}" for end in ends for column in ("label", "probability"))]


def _write_features(path: Path, parts: Parts, paths: Sequence[str]) -> None:
    """Write the arrays features [N, D] and paths [N], one part in memory at a time."""
    width = next(arrays["features"].shape[1] for _, arrays in parts.read())
    header = {"descr": "<f4", "fortran_order": False, "shape": (len(paths), width)}
    with atomic_write(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        with archive.open("features.npy", "w", force_zip64=True) as file:
            np.lib.format.write_array_header_2_0(file, header)
            for _, arrays in parts.read():
                file.write(arrays["features"].astype("<f4").tobytes())
        with archive.open("paths.npy", "w", force_zip64=True) as file:
            np.lib.format.write_array(file, np.array(paths, np.str_), allow_pickle=False)


def class_names(card: ModelCard) -> Sequence[str]:
    """Return the names of a model's classes, their numbers if it has none."""
    return card.class_names or tuple(map(str, range(card.config.num_classes)))
