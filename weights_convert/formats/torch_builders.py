"""Tensors in a pickle: storages by persistent id, and torch's functions that build tensors on them.

Reference: torch/_utils.py, torch/_tensor.py and torch/serialization.py of PyTorch 2.13.
"""

import dataclasses
import reprlib
from collections.abc import Callable
from typing import Any

import numpy as np

from weights_convert.formats.arrays import ALL_DTYPES, MAX_AXES, Storage, Tensor
from weights_convert.formats.inert import Global, Inert
from weights_convert.formats.pickles import Builder, PickleError

STORAGE_TYPES = {
    "torch.DoubleStorage": "float64",
    "torch.FloatStorage": "float32",
    "torch.HalfStorage": "float16",
    "torch.BFloat16Storage": "bfloat16",
    "torch.LongStorage": "int64",
    "torch.IntStorage": "int32",
    "torch.ShortStorage": "int16",
    "torch.CharStorage": "int8",
    "torch.ByteStorage": "uint8",
    "torch.BoolStorage": "bool",
}
OTHER_STORAGE_TYPES = {  # read, so that their arrays can be named; never written
    "torch.ComplexFloatStorage": "complex64",
    "torch.ComplexDoubleStorage": "complex128",
    "torch.QInt8Storage": "int8",
    "torch.QUInt8Storage": "uint8",
    "torch.QInt32Storage": "int32",
    "torch.QUInt4x2Storage": "uint8",
    "torch.QUInt2x4Storage": "uint8",
    "torch.UntypedStorage": "uint8",
    "torch.storage.UntypedStorage": "uint8",
}
STORAGE_DTYPES = STORAGE_TYPES | OTHER_STORAGE_TYPES


def make_storage_loader(
    storages: dict[str, Storage], load_values: Callable[[Storage], np.ndarray]
) -> Callable[[Any], Storage | tuple[Storage, int] | Global]:
    """Return the function that builds the storage of a persistent id and adds it to `storages`.

    In legacy files a view of a storage becomes (storage, offset), and a module's class comes with its source, unused.
    """

    def load_storage(reference: Any) -> Storage | tuple[Storage, int] | Global:
        if isinstance(reference, tuple) and reference[:1] == ("module",) and isinstance(reference[1], Global):
            return reference[1]
        kind, storage_type, key, _, count, *view = reference
        dtype = STORAGE_DTYPES.get(storage_type.name) if isinstance(storage_type, Global) else None
        if kind != "storage" or dtype is None:
            raise PickleError("a reference to something else than a storage")
        if type(count) is not int or not 0 <= count < 2**63:
            raise PickleError(f"a storage of {count if type(count) is int else type(count).__name__} values")
        if not isinstance(key, str):
            raise PickleError("a storage without a name")
        storage = Storage(key, ALL_DTYPES[dtype], count, load_values)
        if storages.setdefault(storage.key, storage) != storage:
            raise PickleError(f"storage {key} described in two ways")
        if view and view[0] is not None:
            return storage, int(view[0][1])
        return storage

    return load_storage


def refuse_reference(_: Any) -> Any:
    """Raise PickleError: only torch's own files have persistent ids."""
    raise PickleError("a reference to something outside the pickle")


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Any:
    base = 0
    if isinstance(storage, tuple):  # a legacy view: (storage, offset into it)
        storage, base = storage
    if not isinstance(storage, Storage):
        return NotImplemented
    numbers = (base, offset, *shape, *strides) if max(len(shape), len(strides)) <= MAX_AXES else ()
    if not numbers or len(shape) != len(strides) or not all(type(n) is int and 0 <= n < 2**63 for n in numbers):
        shape, strides, offset = map(reprlib.repr, (shape, strides, offset))
        raise PickleError(f"invalid tensor: shape {shape}, strides {strides}, offset {offset}")
    return Tensor(storage, base + offset, tuple(shape), tuple(strides))


def _rebuild_tensor_of_type(
    storage: Any, offset: Any, shape: Any, strides: Any, _grad: Any, _hooks: Any, dtype: Any, *_: Any
) -> Any:
    """Build a tensor over untyped bytes: of float8 and other types that have no storage class."""
    name = dtype.name.removeprefix("torch.") if isinstance(dtype, Global) else ""
    if name not in ALL_DTYPES or not isinstance(storage, Storage) or storage.dtype.itemsize != 1:
        return NotImplemented
    typed = dataclasses.replace(storage, dtype=ALL_DTYPES[name], count=storage.count // ALL_DTYPES[name].itemsize)
    return _rebuild_tensor(typed, offset, shape, strides)


def _unwrap_parameter(data: Any, *_: Any) -> Any:
    return data


def _rebuild_from_type(function: Any, _type: Any, arguments: Any, *_: Any) -> Any:
    """Build the tensor in a tensor subclass."""
    if not isinstance(function, Global) or not isinstance(arguments, tuple):
        return NotImplemented
    builder = BUILDERS.get(function.name)
    return builder(*arguments) if builder else Inert(function.name, arguments)


BUILDERS: dict[str, Builder] = {
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v3": _rebuild_tensor_of_type,
    "torch._utils._rebuild_parameter": _unwrap_parameter,
    "torch._utils._rebuild_parameter_with_state": _unwrap_parameter,
    "torch._tensor._rebuild_from_type": _rebuild_from_type,
    "torch._tensor._rebuild_from_type_v2": _rebuild_from_type,
    "torch.Size": lambda shape=(), *_: shape,
}
