"""Decoded images in host memory, up to a number of bytes."""

import threading
from collections.abc import Callable

import numpy as np

from vit_jax.errors import InputError


def check_cache(cache_gb: float) -> None:
    """Raise InputError unless a size in 10^9 bytes is a finite number of at least 0."""
    if not 0 <= cache_gb < float("inf"):
        raise InputError(f"cache_gb is a number of at least 0, not {cache_gb}")


class ImageCache:
    """Arrays by index, each computed once where it fits. At most `budget` bytes are held; threads may share a cache.

    An array that does not fit any more is computed at every access.
    """

    def __init__(self, budget: int):
        self._arrays: dict[int, np.ndarray] = {}
        self._free = budget
        self._lock = threading.Lock()

    @property
    def free_bytes(self) -> int:
        """Bytes of the budget that are not used yet."""
        return self._free

    def __len__(self) -> int:
        return len(self._arrays)

    def get(self, index: int, load: Callable[[], np.ndarray]) -> np.ndarray:
        """Return the array at an index, from the cache or else from `load`."""
        array = self._arrays.get(index)
        if array is None:
            array = load()
            with self._lock:
                if index not in self._arrays and array.nbytes <= self._free:
                    self._free -= array.nbytes
                    self._arrays[index] = array
        return array

    def take(self, indices: list[int]) -> "ImageCache":
        """Return a cache in which position i holds what indices[i] holds here. It inherits the free bytes."""
        subset = ImageCache(self._free)
        subset._arrays = {new: self._arrays[old] for new, old in enumerate(indices) if old in self._arrays}
        return subset
