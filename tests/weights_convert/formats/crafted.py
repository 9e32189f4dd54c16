"""Files for the tests of formats: saved by torch, handwritten, hostile."""

import pickle
import resource
import struct
import zipfile

import numpy as np
import pytest

from tests.optional import torch
from vit_jax import InputError
from weights_convert import read_checkpoint
from weights_convert.formats import open_contents

FORMATS = {"zip": True, "legacy": False}


def write(value, path, kind="zip"):
    torch.save(value, path, _use_new_zipfile_serialization=FORMATS[kind])
    return path


class Evil:
    """Pickled as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def read_refused(path) -> str:
    with pytest.raises(InputError) as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


def write_archive(path, data: bytes, **members: bytes):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        for name, content in members.items():
            archive.writestr(f"archive/data/{name}", content)
    return path


def number(n: int) -> bytes:
    return pickle.dumps(n, 2)[2:-1]


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def tensor_opcodes(size=(2,), stride=(1,), offset=0, count=4) -> bytes:
    """Return handwritten opcodes that push a tensor over storage "0"."""

    def numbers(values) -> bytes:
        return b"(" + b"".join(map(number, values)) + b"t"

    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + number(count) + b"tQ"
    arguments = b"(" + storage + number(offset) + numbers(size) + numbers(stride) + b"\x89" + b"N" + b"t"
    return b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"R"


def tensor_pickle(**options) -> bytes:
    """Return a handwritten pickle of {"w": tensor}."""
    return b"\x80\x02}" + text("w") + tensor_opcodes(**options) + b"s."


def count_refusals(original: bytes, path, count: int) -> int:
    """Read `count` files with one to four random bytes each; return how many raise InputError.

    Any other exception, and 200 MB of memory, fail the test.
    """
    random, refused = np.random.default_rng(0), 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(count):
        data = bytearray(original)
        for _ in range(random.integers(1, 5)):
            data[int(random.integers(len(data)))] = int(random.integers(256))
        path.write_bytes(data)
        try:
            for array in open_contents(path).arrays.values():
                if not array.problem:
                    array.read()
        except InputError:
            refused += 1
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 200_000, f"{grown} KiB more than before"
    return refused
