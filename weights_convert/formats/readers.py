"""Reading checkpoint files. The format is detected from the content, not from the file name."""

import os
from pathlib import Path

from vit_jax.errors import InputError
from weights_convert.formats.contents import Contents, collect_contents, make_contents
from weights_convert.formats.folders import find_snapshot, open_folder
from weights_convert.formats.kinds import START_BYTES, describe_file, describe_zip
from weights_convert.formats.msgpack_files import is_msgpack, open_msgpack
from weights_convert.formats.npz_files import is_npz, open_npz
from weights_convert.formats.safetensors_files import open_safetensors
from weights_convert.formats.torch_files import LEGACY_START, open_legacy, open_pickle, open_zip

ZIP_START = b"PK\x03\x04"
PICKLE_SUFFIXES = (".pkl", ".pickle")


def open_contents(path: str | os.PathLike) -> Contents:
    """Open a checkpoint; return all of its arrays by name, values unread, and the plain values stored with them.

    path: a .pth/.pt/.bin (zip or legacy), .pkl, .safetensors, .npz or .msgpack file; a folder with such a file, or with
          shards and their index, as Hugging Face writes it; or a folder of Hugging Face's cache.
    Raises InputError, naming the file, if it is missing, damaged, hostile, without arrays or of another format.
    """
    path = find_snapshot(Path(path))
    if path.is_dir():
        return open_folder(path, open_contents)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    with open(path, "rb") as file:
        start = file.read(START_BYTES)
    try:
        contents = _open_file(path, start)
        if not contents.arrays:
            raise InputError("it holds no arrays")
        return contents
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _open_file(path: Path, start: bytes) -> Contents:
    if start.startswith(ZIP_START):
        if is_npz(path):
            return make_contents(open_npz(path))
        if description := describe_zip(path):
            raise InputError(description)
        return collect_contents(open_zip(path))
    if start[:1] == b"\x80" and LEGACY_START in start[:32]:
        return collect_contents(open_legacy(path))
    if start[8:9] == b"{":
        return open_safetensors(path)
    if is_msgpack(start):
        return collect_contents(open_msgpack(path))
    if (start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05") or (start and path.suffix in PICKLE_SUFFIXES):
        return collect_contents(open_pickle(path))
    raise InputError(describe_file(path, start))
