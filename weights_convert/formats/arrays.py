"""Arrays in a file: shape and dtype are known at once, values are read on demand."""

from collections.abc import Callable
from dataclasses import dataclass

import ml_dtypes
import numpy as np

from vit_jax.errors import InputError

MAX_EXPANDED_BYTES = 2**30

DTYPES: dict[str, np.dtype] = {
    "float64": np.dtype(np.float64),
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "int64": np.dtype(np.int64),
    "int32": np.dtype(np.int32),
    "int16": np.dtype(np.int16),
    "int8": np.dtype(np.int8),
    "uint8": np.dtype(np.uint8),
    "bool": np.dtype(np.bool_),
}


@dataclass(frozen=True)
class LazyArray:
    """An array in a file. `read` returns it as a new or read-only numpy array."""

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]

    @property
    def nbytes(self) -> int:
        """Size of the values in bytes."""
        return int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize


@dataclass(frozen=True)
class Storage:
    """A contiguous run of `count` values in a file. Several tensors may share one."""

    key: str
    dtype: np.dtype
    count: int


@dataclass(frozen=True)
class Tensor:
    """A strided view of a storage, as torch describes it. Offset and strides count elements.

    Raises InputError if the view is malformed or reaches outside its storage.
    """

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def __post_init__(self) -> None:
        numbers = (self.offset, *self.shape, *self.strides)
        are_valid = all(type(n) is int and n >= 0 for n in numbers)
        if not isinstance(self.storage, Storage) or len(self.shape) != len(self.strides) or not are_valid:
            raise InputError(f"invalid tensor: shape {self.shape}, strides {self.strides}, offset {self.offset}")
        if 0 in self.shape:
            return
        last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))
        if last >= self.storage.count:
            raise InputError(
                f"a tensor of shape {self.shape} reaches element {last} of a storage of {self.storage.count}"
            )
        size = int(np.prod(self.shape, dtype=object))
        if size > self.storage.count and size * self.storage.dtype.itemsize > MAX_EXPANDED_BYTES:
            raise InputError(f"a tensor of shape {self.shape} repeats a storage of {self.storage.count} elements")

    def view(self, values: np.ndarray) -> np.ndarray:
        """Return the tensor as a contiguous array, given the values of its storage."""
        size = values.dtype.itemsize
        strided = np.lib.stride_tricks.as_strided(
            values[self.offset :], self.shape, [s * size for s in self.strides], writeable=False
        )
        return np.ascontiguousarray(strided).reshape(self.shape)  # ascontiguousarray turns a scalar into [1]
