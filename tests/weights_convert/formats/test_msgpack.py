"""Flax's .msgpack files, written by flax; truncated, damaged and hostile ones."""

import flax.serialization
import jax.numpy as jnp
import ml_dtypes
import msgpack
import numpy as np
import pytest

from tests.weights_convert.formats.crafted import count_refusals, read_refused
from vit_jax import InputError
from weights_convert import read_checkpoint
from weights_convert.formats import open_contents

TREE = {
    "params": {
        "embedding": {"kernel": np.arange(24, dtype=np.float32).reshape(2, 3, 4), "bias": jnp.arange(4.0)},
        "brain": jnp.arange(5, dtype=jnp.bfloat16),
        "half": np.arange(3, dtype=np.float16),
        "empty": np.zeros((0, 4), np.float32),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    },
    "step": np.int64(7),
    "opt_state": {"0": {"count": np.array(3)}},
    "classes": ["cat", "dog"],
    "lr": 0.5,
}
EXPECTED = {
    **{f"params.{name}": TREE["params"][name] for name in ("brain", "half", "empty", "fortran")},
    "params.embedding.kernel": TREE["params"]["embedding"]["kernel"],
    "params.embedding.bias": TREE["params"]["embedding"]["bias"],
    "step": TREE["step"],
    "opt_state.0.count": np.array(3),
}


def write(path, tree):
    path.write_bytes(flax.serialization.msgpack_serialize(tree))
    return path


def test_arrays_equal_those_that_flax_restores(tmp_path):
    contents = open_contents(write(tmp_path / "flax_model.msgpack", TREE))
    assert set(contents.arrays) == set(EXPECTED)
    for name, array in EXPECTED.items():
        lazy, array = contents.arrays[name], np.asarray(array)
        assert (lazy.shape, lazy.dtype) == (array.shape, array.dtype)
        np.testing.assert_array_equal(lazy.read(), array, strict=True)
    assert contents.arrays["params.brain"].dtype == ml_dtypes.bfloat16
    assert contents.keys["params.embedding.kernel"] == ("params", "embedding", "kernel")
    assert contents.values == {"classes": ["cat", "dog"], "lr": 0.5}


def test_a_folder_with_flax_weights_only(tmp_path):
    write(tmp_path / "flax_model.msgpack", {"classifier": {"bias": np.ones(2)}})
    (tmp_path / "config.json").write_text("{}")
    np.testing.assert_array_equal(read_checkpoint(tmp_path)["classifier.bias"], [1, 1])


def test_arrays_in_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(flax.serialization, "MAX_CHUNK_SIZE", 16)
    array = np.arange(30, dtype=np.float32).reshape(5, 6)
    brain = np.arange(40).astype(ml_dtypes.bfloat16)
    path = write(tmp_path / "a.msgpack", {"params": {"w": array, "v": brain}})
    assert b"__msgpack_chunked_array__" in path.read_bytes()
    contents = open_contents(path)
    assert contents.arrays["params.w"].shape == (5, 6)
    np.testing.assert_array_equal(contents.arrays["params.w"].read(), array, strict=True)
    np.testing.assert_array_equal(contents.arrays["params.v"].read(), brain, strict=True)
    assert contents.values == {}


def test_unsupported_types_are_named(tmp_path):
    tree = {"w": np.ones(2, ml_dtypes.float8_e4m3fn), "z": np.ones(2, complex), "x": np.ones(2)}
    arrays = open_contents(write(tmp_path / "a.msgpack", tree)).arrays
    np.testing.assert_array_equal(arrays["x"].read(), [1, 1])
    with pytest.raises(InputError, match="w has the unsupported type float8_e4m3fn"):
        arrays["w"].read()
    with pytest.raises(InputError, match="z has the unsupported type complex128"):
        arrays["z"].read()
    assert "unsupported type b'int4'" in read_refused(write(tmp_path / "b.msgpack", {"w": np.ones(2, ml_dtypes.int4)}))


def pack(value) -> bytes:
    return msgpack.packb({"x": value})


def extension(*value, code=1) -> msgpack.ExtType:
    return msgpack.ExtType(code, msgpack.packb(value))


def chunked(shape, chunks):
    return {"__msgpack_chunked_array__": True, "shape": shape, "chunks": chunks}


FOUR = extension((4,), "float32", bytes(16))
HOSTILE = {
    "object array": pack(extension((1,), "O", bytes(8))),
    "structure": pack(extension((1,), "f4,f4", bytes(8))),
    "too few bytes": pack(extension((4,), "float32", bytes(12))),
    "huge shape": pack(extension((2**40, 2**40), "float32", b"")),
    "negative shape": pack(extension((-1,), "float32", bytes(4))),
    "shape that is none": pack(extension("ab", "float32", bytes(4))),
    "values that are none": pack(extension((4,), "float32", 5)),
    "type that is none": pack(extension((4,), 5, bytes(16))),
    "no array": pack(msgpack.ExtType(1, b"\xc1")),
    "no chunks": pack(chunked({"0": 4}, {})),
    "chunks of another size": pack(chunked({"0": 5}, {"0": FOUR})),
    "a chunk that is none": pack(chunked({"0": 4}, {"0": 1})),
    "chunks that are none": pack(chunked(3, 4)),
    "another chunk": pack(chunked({"0": 8}, {"0": FOUR, "7": FOUR})),
    "deep": b"\x81\xa1x" + b"\x91" * 100_000 + b"\xc0",
    "deep dicts": b"\x81\xa1x" * 100_000 + b"\xc0",
    "a list as a key": b"\x82\xa1x\x01\x91\x01\x02",
    "many entries": b"\x81\xa1x\xdd\xff\xff\xff\xff",
    "long text": b"\x81\xa1x\xdb\xff\xff\xff\xff",
    "more after the end": pack(FOUR) + b"\x01",
    "no arrays": pack({"epoch": 3}),
    "timestamp": pack(msgpack.Timestamp(0)),
    "text that is no text": b"\x81\xa1\xff\x01",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused(name, tmp_path):
    path = tmp_path / "a.msgpack"
    path.write_bytes(HOSTILE[name])
    read_refused(path)


def test_truncated_anywhere(tmp_path):
    intact = write(tmp_path / "a.msgpack", TREE).read_bytes()
    path = tmp_path / "cut.msgpack"
    for length in range(0, len(intact), 7):
        path.write_bytes(intact[:length])
        read_refused(path)


def test_fuzzed_files_are_read_or_refused(tmp_path):
    """400 randomly damaged files are read or raise InputError; never another exception, nor much memory."""
    original = write(tmp_path / "a.msgpack", TREE).read_bytes()
    assert count_refusals(original, tmp_path / "b.msgpack", 400) > 40
