""".safetensors files."""

import functools
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from vit_jax.errors import InputError
from weights_convert.formats.arrays import ALL_DTYPES, UNKNOWN, LazyArray, check_dtype
from weights_convert.formats.contents import Contents, make_contents

TYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
    "C64": "complex64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu",
}


def open_safetensors(path: Path) -> Contents:
    """Return the arrays of a .safetensors file, and its metadata. Raises InputError for a damaged file."""
    arrays: dict[str, LazyArray] = {}
    try:
        with safe_open(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118
                piece = file.get_slice(name)
                stored = str(piece.get_dtype())
                dtype = ALL_DTYPES[TYPES[stored]] if stored in TYPES else UNKNOWN
                array = LazyArray(tuple(piece.get_shape()), dtype, functools.partial(_read, path, name))
                arrays[name] = check_dtype(name, array, TYPES.get(stored, stored))
            return make_contents(arrays, dict(file.metadata() or {}))
    except SafetensorError as error:
        raise InputError(f"truncated or damaged safetensors file ({error})") from error


def _read(path: Path, name: str) -> np.ndarray:
    with safe_open(path, framework="numpy") as file:
        return file.get_tensor(name)
