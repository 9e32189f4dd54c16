"""The zip format of torch.save, written without torch: the counterpart of torch_files.

NAME/data.pkl is a pickle of {name: tensor}. It is assembled opcode by opcode, since pickling its globals (torch's
rebuild function and storage types) would need torch. NAME/data/KEY holds a tensor's values, contiguous, little-endian.
Reference: torch/serialization.py of PyTorch 2.13 (_save).
"""

import os
import pickle
import struct
import zipfile
from collections.abc import Mapping

import numpy as np

from weights_convert.formats.torch_builders import STORAGE_TYPES

STORAGES = {dtype: name for name, dtype in STORAGE_TYPES.items()}
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"


def write_torch(path: str | os.PathLike, arrays: Mapping[str, np.ndarray], *, wrapper: str = "") -> None:
    """Write {name: array}, or {wrapper: {name: array}}, as a .pth that torch.load(weights_only=True) reads."""
    keys = {name: str(number) for number, name in enumerate(arrays)}
    state = (
        b"}("
        + b"".join(_encode_text(name) + _encode_tensor(keys[name], array) for name, array in arrays.items())
        + b"u"
    )
    body = b"}(" + _encode_text(wrapper) + state + b"u" if wrapper else state
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", pickle.PROTO + b"\x02" + body + pickle.STOP)
        archive.writestr("archive/byteorder", "little")
        for name, array in arrays.items():
            values = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
            with archive.open(f"archive/data/{keys[name]}", "w", force_zip64=True) as member:
                member.write(values.reshape(-1).view(np.uint8).data)
        archive.writestr("archive/version", "3\n")


def _encode_tensor(key: str, array: np.ndarray) -> bytes:
    """Encode _rebuild_tensor_v2(storage, offset 0, shape, strides in elements, requires_grad False, OrderedDict())."""
    storage_type = STORAGES[array.dtype.name].removeprefix("torch.").encode()
    storage = (
        b"(" + _encode_text("storage") + b"ctorch\n" + storage_type + b"\n" + _encode_text(key) + _encode_text("cpu")
    )
    storage += _encode_integer(array.size) + b"tQ"
    strides = [int(np.prod(array.shape[axis + 1 :])) for axis in range(array.ndim)]
    arguments = storage + _encode_integer(0) + _encode_integers(array.shape) + _encode_integers(strides)
    return REBUILD + b"(" + arguments + pickle.NEWFALSE + b"ccollections\nOrderedDict\n)RtR"


def _encode_text(value: str) -> bytes:
    encoded = value.encode()
    return pickle.BINUNICODE + struct.pack("<I", len(encoded)) + encoded


def _encode_integer(value: int) -> bytes:
    encoded = pickle.encode_long(value)
    return pickle.LONG1 + bytes([len(encoded)]) + encoded


def _encode_integers(values: tuple[int, ...] | list[int]) -> bytes:
    return b"(" + b"".join(map(_encode_integer, values)) + b"t"
