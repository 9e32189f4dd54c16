"""numpy's .npz: a zip archive of .npy members, read without pickle."""

import functools
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from vit_jax.errors import InputError
from weights_convert.formats.arrays import LazyArray, check_dtype

DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    ValueError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    OSError,
    SyntaxError,
)


def is_npz(path: Path) -> bool:
    """Return whether a zip file is numpy's and not torch's."""
    try:
        with zipfile.ZipFile(path) as archive:
            return all(name.endswith(".npy") for name in archive.namelist()) and bool(archive.namelist())
    except DAMAGED:
        return False


def _read_header(file: Any) -> tuple[tuple[int, ...], np.dtype, int]:
    """Return a .npy member's shape, dtype and header length in bytes."""
    version = np.lib.format.read_magic(file)
    readers: dict[tuple[int, int], Any] = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"version {version}")
    shape, _, dtype = readers[version](file)
    return shape, dtype, file.tell()


def open_npz(path: Path) -> dict[str, LazyArray]:
    """Return the arrays of a .npz as LazyArrays.

    Arrays of objects and of other unsupported dtypes are unreadable. Raises InputError for headers that contradict the
    data and for damaged archives.
    """
    opened: dict[str, LazyArray] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                name = info.filename.removesuffix(".npy")
                if name in opened:
                    raise InputError(f"{name} occurs twice; the file is damaged or crafted")
                with archive.open(info) as file:
                    shape, dtype, start = _read_header(file)
                native = dtype.newbyteorder("=")
                array = LazyArray(tuple(shape), native, functools.partial(_read_member, path, info.filename))
                has_size = dtype.hasobject or start + array.nbytes == info.file_size
                if min(shape, default=1) < 0 or not has_size:
                    raise InputError(
                        f"{name} declares shape {shape} but does not have that size; the file is damaged or crafted"
                    )
                opened[name] = check_dtype(name, array)
    except DAMAGED as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"truncated or damaged .npz file ({error})") from error
    return opened


def _read_member(path: Path, member: str) -> np.ndarray:
    try:
        with zipfile.ZipFile(path) as archive, archive.open(member) as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
            if file.read(1):
                raise ValueError("bytes after the last value")
    except DAMAGED as error:
        raise InputError(f"{path}: {member.removesuffix('.npy')} is truncated or damaged ({error})") from error
    return array.astype(array.dtype.newbyteorder("="), copy=False)
