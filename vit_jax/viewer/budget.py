"""Choose how exactly a page stores a picture's layers, and if need be which of them, within a number of bytes.

Precision comes first: the error of the scores grows until the layers fit, up to WORST_ERROR. Only then are layers left
out, evenly. An error e of a score changes an attention weight a by about a (1 - a) e.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from vit_jax.errors import InputError
from vit_jax.viewer.coding import encode_arrays
from vit_jax.viewer.factors import QuantizedFactors, quantize
from vit_jax.viewer.layers import LayerFactors

BEST_ERROR, WORST_ERROR = 0.002, 0.08  # standard deviation of the scores' errors
SIMILARITY_SHARE, SIMILARITY_ERRORS = 0.25, (0.004, 0.02)  # of cosines: this share of the scores', within these bounds
SEARCH_STEPS = 6
ESTIMATE_LEVEL, FINAL_LEVEL = 5, 9  # of the compression, while searching and for the page


class StoredLayer(NamedTuple):
    """A layer as the page has it. scores: what it reconstructs attention from. encoded: for the page's data."""

    layer: int
    scores: QuantizedFactors
    encoded: dict[str, Any]


def store_layers(layers: Sequence[LayerFactors], max_bytes: int | None) -> list[StoredLayer]:
    """Return the layers to show, as exactly as they fit into this many bytes; None: all, with the least error.

    Raises InputError if not even the last layer fits.
    """
    everything = list(range(len(layers)))
    if max_bytes is None:
        return _store(layers, everything, BEST_ERROR)
    sizes = np.array([_measure(layer, WORST_ERROR) for layer in layers])
    if sizes.sum() > max_bytes:
        return _store(layers, _choose_layers(sizes, max_bytes), WORST_ERROR)
    return _store(layers, everything, _search_error(layers, max_bytes))


def _search_error(layers: Sequence[LayerFactors], max_bytes: int) -> float:
    """Return the least error with which all layers fit, by bisection of its logarithm; WORST_ERROR is known to fit."""
    low, high = np.log(BEST_ERROR), np.log(WORST_ERROR)
    if sum(_measure(layer, BEST_ERROR) for layer in layers) <= max_bytes:
        return BEST_ERROR
    for _ in range(SEARCH_STEPS):
        middle = (low + high) / 2
        fits = sum(_measure(layer, float(np.exp(middle))) for layer in layers) <= max_bytes
        low, high = (low, middle) if fits else (middle, high)
    return float(np.exp(high))


def _choose_layers(sizes: np.ndarray, max_bytes: int) -> list[int]:
    """Return as many layers as fit, evenly spaced and with the last one."""
    depth = len(sizes)
    for count in range(depth - 1, 0, -1):
        chosen = np.unique(np.round(np.linspace(depth - 1, 0, count, endpoint=count > 1)).astype(int)).tolist()
        if sizes[chosen].sum() <= max_bytes:
            return chosen
    raise InputError(
        f"a layer takes {sizes[-1] / 1e6:.1f} MB of the page, and there are {max_bytes / 1e6:.1f} MB for a picture; "
        "allow more (max_bytes, --html-mb), or take a smaller image size"
    )


def _measure(layer: LayerFactors, error: float) -> int:
    """Return the bytes of a layer in the page, about."""
    _, encoded = _encode(layer, error, ESTIMATE_LEVEL)
    return sum(len(part["data"]) for part in encoded.values())


def _store(layers: Sequence[LayerFactors], chosen: Sequence[int], error: float) -> list[StoredLayer]:
    return [StoredLayer(index, *_encode(layers[index], error, FINAL_LEVEL)) for index in chosen]


def _encode(layer: LayerFactors, error: float, level: int) -> tuple[QuantizedFactors, dict[str, Any]]:
    cosine_error = float(np.clip(SIMILARITY_SHARE * error, *SIMILARITY_ERRORS))
    scores, similarities = quantize(layer.scores, error), quantize(layer.similarities, cosine_error)
    encoded = {
        "scores": encode_arrays(scores.arrays(), level),
        "similarities": encode_arrays(similarities.arrays(), level),
    }
    return scores, encoded
