"""Arrays in a file: shape and dtype are known at once, values are read on demand."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

import ml_dtypes
import numpy as np

from vit_jax.errors import InputError

MAX_EXPANDED_BYTES = 2**30
MAX_AXES = 64

WEIGHT_TYPES = ("float32", "float16", "bfloat16", "float64")
DTYPES: dict[str, np.dtype] = {
    "float64": np.dtype(np.float64),
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "int64": np.dtype(np.int64),
    "int32": np.dtype(np.int32),
    "int16": np.dtype(np.int16),
    "int8": np.dtype(np.int8),
    "uint64": np.dtype(np.uint64),
    "uint32": np.dtype(np.uint32),
    "uint16": np.dtype(np.uint16),
    "uint8": np.dtype(np.uint8),
    "bool": np.dtype(np.bool_),
}
FLOAT8 = ("e3m4", "e4m3", "e4m3b11fnuz", "e4m3fn", "e4m3fnuz", "e5m2", "e5m2fnuz", "e8m0fnu")
UNSUPPORTED_DTYPES: dict[str, np.dtype] = {  # known by name only, for messages
    "complex64": np.dtype(np.complex64),
    "complex128": np.dtype(np.complex128),
    **{f"float8_{kind}": np.dtype(getattr(ml_dtypes, f"float8_{kind}")) for kind in FLOAT8},
}
ALL_DTYPES = DTYPES | UNSUPPORTED_DTYPES
UNKNOWN = np.dtype(np.void)


@dataclass(frozen=True)
class LazyArray:
    """An array in a file. `read` returns it as a new or read-only numpy array.

    problem: why it cannot be read, in one line that names the array and the remedy; "" if it can be read. `read` raises
             InputError with this line. Shape and dtype are then what the file says, () and void if it says nothing.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]
    problem: str = ""

    @property
    def nbytes(self) -> int:
        """Size of the values in bytes."""
        return int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize


def make_unreadable(problem: str, shape: tuple[int, ...] = (), dtype: np.dtype = UNKNOWN) -> LazyArray:
    """Return an array whose `read` raises InputError with the problem."""

    def read() -> NoReturn:
        raise InputError(problem)

    return LazyArray(shape, dtype, read, problem)


def check_dtype(name: str, array: LazyArray, type_name: str = "") -> LazyArray:
    """Return the array, or an unreadable one if its type is none of DTYPES (float8, complex, text, objects).

    type_name: the file's name of the type, where numpy has none.
    """
    if array.problem or array.dtype.name in DTYPES:
        return array
    *types, last = WEIGHT_TYPES
    return make_unreadable(
        f"{name} has the unsupported type {type_name or array.dtype}, and weights need {', '.join(types)} or {last}; "
        "save it as float32",
        array.shape,
        array.dtype,
    )


def view_bytes(data: bytes | bytearray, dtype: np.dtype, shape: Any, order: str = "C") -> LazyArray | None:
    """Return the array whose values, in C or Fortran order, are `data`; None if their size is not that of the shape."""
    is_shape = isinstance(shape, tuple | list) and len(shape) <= MAX_AXES
    if not is_shape or not all(type(n) is int and 0 <= n < 2**63 for n in shape):
        return None
    if int(np.prod(shape, dtype=object)) * dtype.itemsize != len(data):
        return None

    def read() -> np.ndarray:
        values = np.frombuffer(data, dtype).reshape(shape, order="F" if order == "F" else "C")
        return np.ascontiguousarray(values, dtype.newbyteorder("=")).reshape(shape)

    return LazyArray(tuple(shape), dtype.newbyteorder("="), read)


@dataclass(frozen=True)
class Storage:
    """A contiguous run of `count` values in a file. Several tensors may share one. `load` reads the values."""

    key: str
    dtype: np.dtype
    count: int
    load: Callable[["Storage"], np.ndarray] = field(compare=False, repr=False)


@dataclass(frozen=True)
class Tensor:
    """A strided view of a storage, as torch describes it. Offset and strides count elements.

    Raises InputError if the view reaches outside its storage, or repeats it without bound.
    """

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def __post_init__(self) -> None:
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

    def read(self) -> np.ndarray:
        """Read the tensor as a contiguous array."""
        values = self.storage.load(self.storage)
        size = values.dtype.itemsize
        strided = np.lib.stride_tricks.as_strided(
            values[self.offset :], self.shape, [s * size for s in self.strides], writeable=False
        )
        return np.ascontiguousarray(strided).reshape(self.shape)  # ascontiguousarray turns a scalar into [1]

    def lazy(self) -> LazyArray:
        """Return the tensor as an array to be read on demand."""
        return LazyArray(self.shape, self.storage.dtype, self.read)
