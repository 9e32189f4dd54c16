"""Flax's .msgpack files (flax.serialization.to_bytes), such as flax_model.msgpack of Hugging Face.

An array is an extension of type 1, a numpy scalar one of type 3: the packed (shape, name of the dtype, bytes in C
order). An array above 1 GiB is a dict of flat chunks. Reference: flax/serialization.py of Flax 0.12.
"""

import functools
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from vit_jax.errors import InputError
from weights_convert.formats.arrays import ALL_DTYPES, LazyArray, view_bytes

ARRAY, SCALAR = 1, 3
CHUNKED = "__msgpack_chunked_array__"
TEXT = (*range(0xA0, 0xC0), 0xD9, 0xDA, 0xDB)  # the bytes that begin a string
DAMAGED = (ValueError, TypeError, KeyError, OverflowError, RecursionError, MemoryError, msgpack.UnpackException)


def is_msgpack(start: bytes) -> bool:
    """Return whether a file may be one: it starts with a map whose first key is text."""
    first = start[:1]
    header = 1 if b"\x81" <= first <= b"\x8f" else {b"\xde": 3, b"\xdf": 5}.get(first, len(start))
    return start[header : header + 1] != b"" and start[header] in TEXT


def open_msgpack(path: Path) -> Any:
    """Read the file as nested dicts; its arrays are LazyArrays over the file's bytes, which stay in memory.

    Raises InputError for a damaged or hostile file.
    """
    try:
        return msgpack.unpackb(
            path.read_bytes(), ext_hook=_read_extension, object_hook=_join_chunks, raw=False, strict_map_key=False
        )
    except DAMAGED as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"truncated or damaged msgpack file ({type(error).__name__}: {str(error)[:100]})") from error


def _read_extension(code: int, data: bytes) -> LazyArray | None:
    if code not in (ARRAY, SCALAR):
        return None
    shape, name, values = msgpack.unpackb(data, raw=True)
    if not isinstance(name, bytes) or not isinstance(values, bytes):
        raise ValueError("an array without a type or values")
    dtype = ALL_DTYPES.get(name.decode("ascii", errors="replace"))
    if dtype is None:
        raise InputError(f"an array of the unsupported type {name[:40]!r}; save it as float32")
    array = view_bytes(values, dtype, shape)
    if array is None:
        raise ValueError("an array whose bytes do not fill its shape")
    return array


def _join_chunks(node: dict[Any, Any]) -> Any:
    """Return the array that a dict of chunks stands for; another dict as it is."""
    if CHUNKED not in node:
        return node
    shape = tuple(node["shape"][str(axis)] for axis in range(len(node["shape"])))
    chunks = [node["chunks"][str(number)] for number in range(len(node["chunks"]))]
    if not chunks or not all(isinstance(chunk, LazyArray) and chunk.dtype == chunks[0].dtype for chunk in chunks):
        raise ValueError("chunks that are not arrays of one type")
    if not all(type(n) is int and n >= 0 for n in shape) or np.prod(shape, dtype=object) != sum(
        np.prod(chunk.shape, dtype=object) for chunk in chunks
    ):
        raise ValueError("chunks that do not fill their array")
    return LazyArray(shape, chunks[0].dtype, functools.partial(_concatenate, chunks, shape))


def _concatenate(chunks: list[LazyArray], shape: tuple[int, ...]) -> np.ndarray:
    return np.concatenate([chunk.read().reshape(-1) for chunk in chunks]).reshape(shape)
