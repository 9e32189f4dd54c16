"""numpy's .npz: a zip of .npy members, read without pickle."""

import functools
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from vit_jax.errors import InputError
from weights_convert.formats.arrays import DTYPES, LazyArray

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
    """Whether a zip file is numpy's and not torch's."""
    try:
        with zipfile.ZipFile(path) as archive:
            return all(name.endswith(".npy") for name in archive.namelist()) and bool(archive.namelist())
    except DAMAGED:
        return False


def _header(file: Any) -> tuple[tuple[int, ...], np.dtype, int]:
    """Shape, type and length in bytes of the part of a .npy member that comes before its values."""
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
    """The arrays of a .npz, unread. Raises InputError for objects, other types, sizes that lie, a damaged archive."""
    opened: dict[str, LazyArray] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                name = info.filename.removesuffix(".npy")
                if name in opened:
                    raise InputError(f"{name} is there twice; the file is damaged or crafted")
                with archive.open(info) as file:
                    shape, dtype, start = _header(file)
                kind = dtype.newbyteorder("=")
                if dtype.hasobject or kind.name not in DTYPES:
                    raise InputError(f"{name} has the type {dtype}, which this library does not read")
                array = LazyArray(tuple(shape), kind, functools.partial(_read, path, info.filename))
                if min(shape, default=1) < 0 or start + array.nbytes != info.file_size:
                    raise InputError(f"{name} says {shape} but does not have that size; the file is damaged or crafted")
                opened[name] = array
    except DAMAGED as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"truncated or damaged .npz file ({error})") from error
    return opened


def _read(path: Path, member: str) -> np.ndarray:
    try:
        with zipfile.ZipFile(path) as archive, archive.open(member) as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
            if file.read(1):
                raise ValueError("bytes after the last value")
    except DAMAGED as error:
        raise InputError(f"{path}: {member.removesuffix('.npy')} is truncated or damaged ({error})") from error
    return array.astype(array.dtype.newbyteorder("="), copy=False)
