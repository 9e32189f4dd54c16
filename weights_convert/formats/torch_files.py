"""The two file formats of torch.save, read without torch.

Zip format (PyTorch >= 1.6): NAME/data.pkl describes the tensors, NAME/data/KEY holds each storage, uncompressed and
with a checksum. Legacy format: five pickles (magic number, protocol, system, the object, the storages' keys), then for
each storage an int64 count and its values.
Reference: torch/serialization.py of PyTorch 2.13 (_load, _legacy_load).
"""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from vit_jax.errors import InputError
from weights_convert.formats.arrays import DTYPES, LazyArray, Storage, Tensor
from weights_convert.formats.pickles import Global, Interpreter, PickleError

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_START = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the pickled magic number, after the protocol bytes
ZIP_START = b"PK\x03\x04"

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
TORCH_DTYPES = frozenset(f"torch.{name}" for name in DTYPES)


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Tensor:
    base = 0
    if isinstance(storage, tuple):  # a legacy view: (storage, offset into it)
        storage, base = storage
    return Tensor(storage, base + offset, tuple(shape), tuple(strides))


def _rebuild_parameter(data: Any, *_: Any) -> Any:
    return data


BUILDERS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
}


def _is_allowed(name: str) -> bool:
    return name in STORAGE_TYPES or name in TORCH_DTYPES


def _make_interpreter(storages: dict[str, Storage]) -> Interpreter:
    def load_storage(reference: Any) -> Storage | tuple[Storage, int]:
        kind, storage_type, key, _, count, *view = reference
        if kind != "storage" or not isinstance(storage_type, Global) or storage_type.name not in STORAGE_TYPES:
            raise PickleError(f"a reference to {reference!r:.80} instead of a storage")
        if type(count) is not int or count < 0:
            raise PickleError(f"a storage of {count!r:.40} values")
        if not isinstance(key, str):
            raise PickleError("a storage without a name")
        storage = Storage(key, DTYPES[STORAGE_TYPES[storage_type.name]], count)
        if storages.setdefault(storage.key, storage) != storage:
            raise PickleError(f"storage {key} described in two ways")
        if view and view[0] is not None:
            return storage, int(view[0][1])
        return storage

    return Interpreter(BUILDERS, _is_allowed, load_storage)


def _make_lazy(tree: Any, read_values: Callable[[Storage], np.ndarray]) -> Any:
    """Replace the tensors in nested dicts by LazyArrays; leave other values as they are."""
    copies: dict[int, Any] = {}  # by identity, so that shared and cyclic dicts stay so

    def replace(node: Any) -> Any:
        if isinstance(node, Tensor):
            return LazyArray(node.shape, node.storage.dtype, lambda: node.view(read_values(node.storage)))
        if not isinstance(node, dict):
            return node
        if id(node) not in copies:
            copies[id(node)] = copy = {}
            copy.update({key: replace(value) for key, value in node.items()})
        return copies[id(node)]

    try:
        return replace(tree)
    except RecursionError as error:
        raise InputError("dicts nested too deep") from error


def open_zip(path: Path) -> Any:
    """Read a zip-format file; its tensors are LazyArrays. Raises InputError for a damaged or hostile file."""
    try:
        archive = zipfile.ZipFile(path)
        members = {info.filename: info for info in archive.infolist()}
    except (
        zipfile.BadZipFile,
        ValueError,
        NotImplementedError,
        EOFError,
        OSError,
    ) as error:  # OSError: offsets outside the file
        raise InputError(f"truncated or damaged zip archive ({error})") from error
    pickles = [name for name in members if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise InputError("a zip archive without a data.pkl: not a PyTorch checkpoint")
    prefix = pickles[0].removesuffix("data.pkl")
    size = path.stat().st_size

    def read_member(name: str) -> bytes:
        info = members.get(prefix + name)
        if info is None:
            raise InputError(f"truncated archive: {prefix}{name} is missing")
        if info.compress_type != zipfile.ZIP_STORED or info.file_size > size:
            raise InputError(f"{prefix}{name} is compressed, which torch.save never does; unpack it and save again")
        try:
            return archive.read(info)
        except (zipfile.BadZipFile, EOFError, ValueError, RuntimeError, NotImplementedError, OSError) as error:
            raise InputError(f"damaged archive: {error}") from error

    if f"{prefix}byteorder" in members and read_member("byteorder").strip() != b"little":
        raise InputError("written on a big-endian machine; load and save it with torch on a little-endian one")
    storages: dict[str, Storage] = {}
    tree = _make_interpreter(storages).run(io.BytesIO(read_member("data.pkl")))
    for storage in storages.values():
        info = members.get(f"{prefix}data/{storage.key}")
        if info is None or info.file_size != storage.count * storage.dtype.itemsize:
            raise InputError(f"truncated archive: {prefix}data/{storage.key} is missing or of another size")
    return _make_lazy(tree, lambda storage: np.frombuffer(read_member(f"data/{storage.key}"), storage.dtype))


def open_legacy(path: Path) -> Any:
    """Read a legacy file; its tensors are LazyArrays. Raises InputError for a damaged or hostile file."""
    size = path.stat().st_size
    storages: dict[str, Storage] = {}
    offsets: dict[str, int] = {}
    with open(path, "rb") as file:
        if _make_interpreter({}).run(file) != LEGACY_MAGIC:
            raise InputError("not a PyTorch checkpoint (wrong magic number)")
        _make_interpreter({}).run(file)  # the protocol version
        system = _make_interpreter({}).run(file)
        if not isinstance(system, dict) or system.get("little_endian") is not True:
            raise InputError("written on a big-endian machine; load and save it with torch on a little-endian one")
        tree = _make_interpreter(storages).run(file)
        keys = _make_interpreter({}).run(file)
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            raise InputError("damaged: no list of storages")
        for key in keys:
            storage = storages.get(key)
            header = file.read(8)
            if storage is None or int.from_bytes(header, "little") != storage.count or len(header) < 8:
                raise InputError(f"truncated or damaged at storage {key}")
            offsets[key] = file.tell()
            if file.seek(storage.count * storage.dtype.itemsize, io.SEEK_CUR) > size:
                raise InputError(f"truncated: storage {key} ends past the end of the file")
    missing = sorted(set(storages) - set(offsets))
    if missing:
        raise InputError(f"truncated: storage {missing[0]} is missing")

    def read_values(storage: Storage) -> np.ndarray:
        return np.fromfile(path, storage.dtype, storage.count, offset=offsets[storage.key])

    return _make_lazy(tree, read_values)
