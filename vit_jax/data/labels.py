"""Check labels that a caller passes: a number or a text for each image, or booleans for sets of labels."""

from typing import Any, NamedTuple

import numpy as np

from vit_jax.data.dataset import Labels
from vit_jax.data.unicode_names import compose_name
from vit_jax.errors import InputError

KINDS = "whole numbers or texts [N], or for sets of labels booleans [N, C]"


class ParsedLabels(NamedTuple):
    """Labels as a Split has them. class_names: sorted, that labels which are texts name; None for numbers and sets."""

    labels: Labels
    class_names: tuple[str, ...] | None = None


def parse_labels(labels: Any, name: str) -> ParsedLabels:
    """Return labels as int32 [N], or as booleans [N, C] for sets of labels.

    labels: an array or a sequence of whole numbers or texts [N], or booleans [N, C]. name: for messages.
    Raises InputError for any others, for a negative or too large number, and for an empty text.
    """
    try:
        array = np.asarray(labels)
    except ValueError as error:  # lists of different lengths
        raise InputError(f"{name}: labels are lists of different lengths; give {KINDS}") from error
    if array.ndim == 2 and array.dtype == np.bool_:
        return ParsedLabels(array)
    if array.ndim != 1:
        raise InputError(f"{name}: labels are {array.dtype} {array.shape}; give {KINDS}")
    if array.dtype.kind == "U" or (array.dtype == object and len(array) and all(isinstance(x, str) for x in array)):
        return _parse_texts(array, name)
    if len(array) and array.dtype.kind not in "iu":
        raise InputError(f"{name}: labels are {array.dtype}; give whole numbers: labels.astype('int32') if they are")
    wrong = np.flatnonzero((array < 0) | (array > np.iinfo(np.int32).max))
    if len(wrong):
        raise InputError(
            f"{name}: label {array[wrong[0]]} of image {wrong[0]} is no class; number the classes from 0, or give texts"
        )
    return ParsedLabels(array.astype(np.int32))


def _parse_texts(texts: np.ndarray, name: str) -> ParsedLabels:
    composed = np.array([compose_name(str(text)) for text in texts])
    empty = np.flatnonzero(np.char.strip(composed) == "")
    if len(empty):
        raise InputError(f"{name}: the label of image {empty[0]} is empty; give it one, or leave the image out")
    names, indices = np.unique(composed, return_inverse=True)
    return ParsedLabels(indices.astype(np.int32), tuple(names.tolist()))
