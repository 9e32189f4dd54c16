"""Write a safetensors file one array at a time.

The safetensors library copies every array to bytes before it writes the first, which doubles the memory of a large
model. Format (https://github.com/huggingface/safetensors#format): length of the header as a little-endian uint64, JSON
header {name: {dtype, shape, data_offsets}} padded with spaces to 8 bytes, data.
"""

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

DTYPES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}


def write_safetensors(path: str | os.PathLike, arrays: Mapping[str, Any]) -> None:
    """Write {name: array} to `path`. Raises KeyError for a dtype that is not in DTYPES, OSError if writing fails."""
    header, offset = {}, 0
    for name, array in arrays.items():
        size = array.size * array.dtype.itemsize
        header[name] = {
            "dtype": DTYPES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + size],
        }
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for array in arrays.values():
            file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        file.flush()
        os.fsync(file.fileno())
