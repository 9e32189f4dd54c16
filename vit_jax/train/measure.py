"""The measure by which a classifier's epochs and runs are compared, as metrics.jsonl records it."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Measure(NamedTuple):
    """A measure of which the highest value is the best: its name in records, and its label in texts and figures."""

    name: str
    label: str


ACCURACY = Measure("val_accuracy", "validation accuracy")
MEAN_AVERAGE_PRECISION = Measure("val_map", "validation mAP")  # of images with sets of labels


def measure_of(record: Mapping[str, Any]) -> Measure:
    """Return the measure of the run that wrote a record of an epoch."""
    return MEAN_AVERAGE_PRECISION if MEAN_AVERAGE_PRECISION.name in record else ACCURACY
