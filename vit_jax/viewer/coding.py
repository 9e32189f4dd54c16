"""Arrays as text for a page: their bytes one after another, compressed and in base64.

The page reads them with the browser's own DecompressionStream; static/codec.js is the other side of this file.
"""

import base64
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

BYTE = 256
SPLIT = "split16"  # 16-bit integers as all their low bytes, then all high bytes: the latter are mostly 0 and compress
KINDS = {"float32": "float32", "int8": "int8", "uint8": "uint8", "uint16": "uint16", "int16": SPLIT}


def encode_arrays(arrays: Mapping[str, np.ndarray], level: int = 9) -> dict[str, Any]:
    """Return named arrays as {"arrays": [[name, kind, shape], ...], "data": base64}, ready for JSON.

    level: of zlib's compression, 1 to 9.
    """
    contents = b"".join(_to_bytes(array) for array in arrays.values())
    described = [[name, KINDS[array.dtype.name], list(array.shape)] for name, array in arrays.items()]
    return {"arrays": described, "data": base64.b64encode(zlib.compress(contents, level)).decode()}


def decode_arrays(encoded: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the arrays of encode_arrays, as the page reads them."""
    contents, arrays, start = zlib.decompress(base64.b64decode(encoded["data"])), {}, 0
    for name, kind, shape in encoded["arrays"]:
        count = int(np.prod(shape))
        if kind == SPLIT:
            low, high = np.frombuffer(contents, np.int8, 2 * count, start).astype(np.int16).reshape(2, *shape)
            arrays[name], size = low + BYTE * high, 2 * count
        else:
            arrays[name] = np.frombuffer(contents, kind, count, start).reshape(shape)
            size = arrays[name].nbytes
        start += size
    return arrays


def _to_bytes(array: np.ndarray) -> bytes:
    if array.dtype != np.int16:
        return array.astype(array.dtype.newbyteorder("<")).tobytes()
    low = array.astype(np.int8)  # the signed low byte: small negative numbers have a high byte of 0 too
    high = (array.astype(np.int32) - low) // BYTE
    return low.tobytes() + high.astype(np.int8).tobytes()
