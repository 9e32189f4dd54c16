"""numpy arrays and scalars in a pickle, decoded without numpy's own unpickling.

numpy stores an array as _reconstruct(ndarray, (0,), b"b") with the state (version, shape, dtype, is Fortran order,
bytes), or in protocol 5 as _frombuffer(bytes, dtype, shape, order); a scalar as scalar(dtype, bytes); a dtype as
dtype("f4", False, True) with the state (version, "<" or ">", ...). jax stores an array as _reconstruct_array(function,
arguments, state of the numpy array, ...). Arrays of objects are not decoded.
"""

import re
from typing import Any

import numpy as np

from weights_convert.formats.arrays import ALL_DTYPES, LazyArray, view_bytes
from weights_convert.formats.inert import Global, Inert

CODE = re.compile(r"[fiuc]\d{1,2}|b1|U\d{1,6}")
RECONSTRUCT = ("numpy._core.multiarray._reconstruct", "numpy.core.multiarray._reconstruct")
FROM_BUFFER = ("numpy._core.numeric._frombuffer", "numpy.core.numeric._frombuffer")
SCALAR = ("numpy._core.multiarray.scalar", "numpy.core.multiarray.scalar")
JAX_ARRAY = "jax._src.array._reconstruct_array"


def decode_array(node: Any) -> LazyArray | None:
    """Return the array that an Inert stands for; None if it is none, or one that cannot be decoded."""
    if not isinstance(node, Inert):
        return None
    match node.name, node.arguments, node.states:
        case name, (Global("numpy.ndarray"), *_), [*_, (_, shape, dtype, is_fortran, data)] if name in RECONSTRUCT:
            return _view(data, dtype, shape, "F" if is_fortran is True else "C")
        case name, (data, dtype, shape, order), _ if name in FROM_BUFFER:
            return _view(data, dtype, shape, order)
        case name, (Global(function), tuple(arguments), state, *_), _ if name == JAX_ARRAY and function != JAX_ARRAY:
            return decode_array(Inert(function, arguments, [state]))
    return None


def decode_scalar(node: Inert) -> Any:
    """Return the Python value of a numpy scalar; None if the Inert is none, or one that cannot be decoded."""
    if node.name not in SCALAR or len(node.arguments) != 2:
        return None
    array = _view(node.arguments[1], node.arguments[0], (), "C")
    return None if array is None else array.read().item()


def _view(data: Any, dtype: Any, shape: Any, order: Any) -> LazyArray | None:
    """Return the array of the bytes; None unless it is one of numbers or text, and of their size."""
    decoded = _decode_dtype(dtype)
    is_valid = isinstance(data, bytes | bytearray) and isinstance(order, str)
    return view_bytes(data, decoded, shape, order) if decoded is not None and is_valid else None


def _decode_dtype(node: Any) -> np.dtype | None:
    if not isinstance(node, Inert) or node.name != "numpy.dtype" or not node.arguments:
        return None
    code = node.arguments[0]
    if isinstance(code, Global):  # ml_dtypes.bfloat16
        module, _, name = code.name.partition(".")
        return ALL_DTYPES.get(name) if module == "ml_dtypes" else None
    if not isinstance(code, str) or not CODE.fullmatch(code):
        return None
    state = node.states[-1] if node.states else ()
    is_big = isinstance(state, tuple) and state[1:2] == (">",)
    try:
        return np.dtype(code).newbyteorder(">" if is_big else "<")
    except TypeError:  # such as f3
        return None
