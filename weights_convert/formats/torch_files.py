"""torch.save's two file formats, read without torch.

The zip format (PyTorch >= 1.6): NAME/data.pkl describes the tensors, NAME/data/KEY holds each storage, stored
uncompressed with a checksum. The legacy format: five pickles (magic number, protocol, system, the object, the
storages' keys), then for each storage an int64 count and its values.
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
LEGACY_START = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the magic number pickled, after the protocol's own bytes
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


def _allowed(name: str) -> bool:
    return name in STORAGE_TYPES or name in TORCH_DTYPES


def _interpreter(storages: dict[str, Storage]) -> Interpreter:
    def persistent(reference: Any) -> Storage | tuple[Storage, int]:
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

    return Interpreter(BUILDERS, _allowed, persistent)


def _lazy(tree: Any, values: Callable[[Storage], np.ndarray]) -> Any:
    """Tensors of a nested dict as LazyArrays; what holds no arrays is left as it is."""
    made: dict[int, Any] = {}  # by identity, so that dicts that share or hold themselves stay as they are

    def lazy(node: Any) -> Any:
        if isinstance(node, Tensor):
            return LazyArray(node.shape, node.storage.dtype, lambda: node.view(values(node.storage)))
        if not isinstance(node, dict):
            return node
        if id(node) not in made:
            made[id(node)] = copy = {}
            copy.update({key: lazy(value) for key, value in node.items()})
        return made[id(node)]

    try:
        return lazy(tree)
    except RecursionError as error:
        raise InputError("dicts nested too deep") from error


def open_zip(path: Path) -> Any:
    """The object of a zip-format file, tensors as LazyArrays. Raises InputError for a damaged or hostile file."""
    try:
        archive = zipfile.ZipFile(path)
        members = {info.filename: info for info in archive.infolist()}
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError, OSError) as error:  # OSError: wild offsets
        raise InputError(f"truncated or damaged zip archive ({error})") from error
    pickles = [name for name in members if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise InputError("a zip archive without a data.pkl: not a PyTorch checkpoint")
    prefix = pickles[0].removesuffix("data.pkl")
    size = path.stat().st_size

    def member(name: str) -> bytes:
        info = members.get(prefix + name)
        if info is None:
            raise InputError(f"truncated archive: {prefix}{name} is missing")
        if info.compress_type != zipfile.ZIP_STORED or info.file_size > size:
            raise InputError(f"{prefix}{name} is compressed, which torch.save never does; unpack it and save again")
        try:
            return archive.read(info)
        except (zipfile.BadZipFile, EOFError, ValueError, RuntimeError, NotImplementedError, OSError) as error:
            raise InputError(f"damaged archive: {error}") from error

    if f"{prefix}byteorder" in members and member("byteorder").strip() != b"little":
        raise InputError("written on a big-endian machine; load and save it with torch on a little-endian one")
    storages: dict[str, Storage] = {}
    tree = _interpreter(storages).run(io.BytesIO(member("data.pkl")))
    for storage in storages.values():
        info = members.get(f"{prefix}data/{storage.key}")
        if info is None or info.file_size != storage.count * storage.dtype.itemsize:
            raise InputError(f"truncated archive: {prefix}data/{storage.key} is missing or of another size")
    return _lazy(tree, lambda storage: np.frombuffer(member(f"data/{storage.key}"), storage.dtype))


def open_legacy(path: Path) -> Any:
    """The object of a legacy file, tensors as LazyArrays. Raises InputError for a damaged or hostile file."""
    size = path.stat().st_size
    storages: dict[str, Storage] = {}
    places: dict[str, int] = {}
    with open(path, "rb") as file:
        if _interpreter({}).run(file) != LEGACY_MAGIC:
            raise InputError("not a PyTorch checkpoint (another magic number)")
        _interpreter({}).run(file)  # the protocol's number
        system = _interpreter({}).run(file)
        if not isinstance(system, dict) or system.get("little_endian") is not True:
            raise InputError("written on a big-endian machine; load and save it with torch on a little-endian one")
        tree = _interpreter(storages).run(file)
        keys = _interpreter({}).run(file)
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            raise InputError("damaged: no list of storages")
        for key in keys:
            storage = storages.get(key)
            header = file.read(8)
            if storage is None or int.from_bytes(header, "little") != storage.count or len(header) < 8:
                raise InputError(f"truncated or damaged at storage {key}")
            places[key] = file.tell()
            if file.seek(storage.count * storage.dtype.itemsize, io.SEEK_CUR) > size:
                raise InputError(f"truncated: storage {key} ends past the end of the file")
    absent = sorted(set(storages) - set(places))
    if absent:
        raise InputError(f"truncated: storage {absent[0]} is missing")

    def values(storage: Storage) -> np.ndarray:
        return np.fromfile(path, storage.dtype, storage.count, offset=places[storage.key])

    return _lazy(tree, values)
