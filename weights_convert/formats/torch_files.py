"""The two file formats of torch.save, and plain pickles, read without torch.

Zip format (PyTorch >= 1.6): NAME/data.pkl describes the tensors, NAME/data/KEY holds each storage, uncompressed and
with a checksum. Legacy format: five pickles (magic number, protocol, system, the object, the storages' keys), then for
each storage an int64 count and its values. A plain pickle holds each storage as the bytes of a legacy file.
Reference: torch/serialization.py of PyTorch 2.13 (_load, _legacy_load).
"""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from vit_jax.errors import InputError
from weights_convert.formats.arrays import Storage
from weights_convert.formats.pickles import Interpreter, PickleError
from weights_convert.formats.torch_builders import BUILDERS, make_storage_loader, refuse_reference

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_START = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the pickled magic number, after the protocol bytes
BIG_ENDIAN = "written on a big-endian machine; load and save it with torch on a little-endian one"
DAMAGED_ZIP = (zipfile.BadZipFile, EOFError, ValueError, RuntimeError, NotImplementedError, OSError)


def open_zip(path: Path) -> Any:
    """Read a zip-format file; its tensors are Tensors. Raises InputError for a damaged or hostile file."""
    try:
        archive = zipfile.ZipFile(path)
        members = {info.filename: info for info in archive.infolist()}
    except DAMAGED_ZIP as error:  # OSError: offsets outside the file
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
        except DAMAGED_ZIP as error:
            raise InputError(f"damaged archive: {error}") from error

    def load_values(storage: Storage) -> np.ndarray:
        return np.frombuffer(read_member(f"data/{storage.key}"), storage.dtype, storage.count)

    if f"{prefix}byteorder" in members and read_member("byteorder").strip() != b"little":
        raise InputError(BIG_ENDIAN)
    storages: dict[str, Storage] = {}
    loader = make_storage_loader(storages, load_values)
    tree = Interpreter(BUILDERS, loader).run(io.BytesIO(read_member("data.pkl")))
    for storage in storages.values():
        info = members.get(f"{prefix}data/{storage.key}")
        if info is None or info.file_size != storage.count * storage.dtype.itemsize:
            raise InputError(f"truncated archive: {prefix}data/{storage.key} is missing or of another size")
    return tree


def open_legacy(path: Path) -> Any:
    """Read a legacy file; its tensors are Tensors. Raises InputError for a damaged or hostile file."""

    def read_at(offset: int, storage: Storage) -> np.ndarray:
        return np.fromfile(path, storage.dtype, storage.count, offset=offset)

    with open(path, "rb") as file:
        return _read_legacy(file, path.stat().st_size, read_at)


def open_pickle(path: Path) -> Any:
    """Read a plain pickle; its tensors are Tensors. Raises InputError for a damaged or hostile file."""
    with open(path, "rb") as file:
        builders = {**BUILDERS, "torch.storage._load_from_bytes": _load_from_bytes}
        return Interpreter(builders, refuse_reference).run(file)


def _load_from_bytes(data: Any) -> Storage:
    """Return the storage that the bytes of a legacy file hold."""
    if not isinstance(data, bytes):
        raise PickleError("a storage that is not bytes")

    def read_at(offset: int, storage: Storage) -> np.ndarray:
        return np.frombuffer(data, storage.dtype, storage.count, offset)

    storage = _read_legacy(io.BytesIO(data), len(data), read_at)
    if not isinstance(storage, Storage):
        raise PickleError("a storage that is something else")
    return storage


def _read_legacy(file: Any, size: int, read_at: Callable[[int, Storage], np.ndarray]) -> Any:
    """Read a legacy file of `size` bytes. read_at: reads a storage's values at an offset."""
    storages: dict[str, Storage] = {}
    offsets: dict[str, int] = {}
    loader = make_storage_loader(storages, lambda storage: read_at(offsets[storage.key], storage))

    def run(persistent: Callable[[Any], Any] = refuse_reference) -> Any:
        return Interpreter(BUILDERS, persistent).run(file)

    if run() != LEGACY_MAGIC:
        raise InputError("not a PyTorch checkpoint (wrong magic number)")
    run()  # the protocol version
    system = run()
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise InputError(BIG_ENDIAN)
    tree = run(loader)
    keys = run()
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise InputError("damaged: no list of storages")
    for key in keys:
        storage = storages.get(key)
        header = file.read(8)
        if storage is None or int.from_bytes(header, "little") != storage.count or len(header) < 8:
            raise InputError(f"truncated or damaged at storage {key[:40]}")
        offsets[key] = file.tell()
        end = file.tell() + storage.count * storage.dtype.itemsize
        if end > size:
            raise InputError(f"truncated: storage {key[:40]} ends past the end of the file")
        file.seek(end)
    missing = sorted(set(storages) - set(offsets))
    if missing:
        raise InputError(f"truncated: storage {missing[0][:40]} is missing")
    return tree
