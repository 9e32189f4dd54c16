"""Hostile pickles next to arrays: nothing is imported or called, and reading stays bounded in time, memory and stack."""

import os
import pickle
import resource
import struct
import subprocess
import time

import numpy as np
import pytest

from tests import optional
from tests.weights_convert.formats.crafted import (
    FORMATS,
    Evil,
    count_refusals,
    number,
    read_refused,
    tensor_opcodes,
    text,
    write,
    write_archive,
)
from vit_jax import InputError
from weights_convert import read_checkpoint
from weights_convert.formats import contents, open_contents, values

VALUES = np.arange(4, dtype=np.float32).tobytes()
SYSTEM = b"cposix\nsystem\n"


def write_beside_array(path, opcodes: bytes, protocol=b"\x80\x04"):
    """Write {"w": tensor, "evil": what the opcodes push}."""
    data = protocol + b"}" + text("w") + tensor_opcodes() + b"s" + text("evil") + opcodes + b"s."
    return write_archive(path, data, **{"0": VALUES})


def call(kind: str, command: str) -> bytes:
    """Return opcodes that make Python's own unpickler run a command, in one of its ways to call something."""
    argument = text(command)
    encoded = command.encode()
    return {
        "REDUCE": SYSTEM + b"(" + argument + b"tR",
        "NEWOBJ": SYSTEM + b"(" + argument + b"t\x81",
        "NEWOBJ_EX": SYSTEM + b"(" + argument + b"t}\x92",
        "NEWOBJ_EX with options": SYSTEM + b")}" + text("command") + argument + b"s\x92",
        "INST": b"(" + argument + b"iposix\nsystem\n",
        "OBJ": b"(" + SYSTEM + argument + b"o",
        "STACK_GLOBAL": text("posix") + text("system") + b"\x93(" + argument + b"tR",
        "BUILD": SYSTEM + b")R}" + text("__setstate__") + SYSTEM + b"sb" + argument + b"b",
        "nested": SYSTEM + b"(" + SYSTEM + b"(" + argument + b"tRtR",
        "call of a call": b"cbuiltins\ngetattr\n(cbuiltins\n__import__\n(" + text("os") + b"tR" + text("system") + b"tR("
        + argument + b"tR",
        "items": b"cposix\nsystem\n)R(" + argument + argument + b"u(" + argument + b"e(" + argument + b"\x90",
        "key": b"}" + SYSTEM + b"(" + argument + b"tRNs",
        "reconstructor": b"ccopyreg\n_reconstructor\n(" + SYSTEM + b"cbuiltins\nobject\n" + argument + b"tR",
        "text": SYSTEM + b"(S'" + encoded + b"'\ntR",
        "popped": SYSTEM + b"(" + argument + b"tR0N",
        "popped mark": b"(" + SYSTEM + b"(" + argument + b"tR1N",
    }[kind]  # fmt: skip


KINDS = ["REDUCE", "NEWOBJ", "NEWOBJ_EX", "NEWOBJ_EX with options", "INST", "OBJ", "STACK_GLOBAL", "BUILD", "nested"]
KINDS += ["call of a call", "items", "key", "reconstructor", "text", "popped", "popped mark"]


@pytest.mark.parametrize("kind", KINDS)
def test_calls_next_to_an_array_are_inert(kind, tmp_path):
    marker = tmp_path / "executed"
    path = write_beside_array(tmp_path / "a.pth", call(kind, f"touch {marker}"))
    opened = open_contents(path)
    np.testing.assert_array_equal(opened.arrays["w"].read(), [0, 1])
    assert list(opened.arrays) == ["w"]
    assert not marker.exists()


@pytest.mark.parametrize("kind", ["REDUCE", "NEWOBJ", "NEWOBJ_EX", "INST", "OBJ", "STACK_GLOBAL", "reconstructor"])
def test_calls_without_an_array_are_refused_by_name(kind, tmp_path):
    marker = tmp_path / "executed"
    path = write_archive(tmp_path / "a.pth", b"\x80\x04" + call(kind, f"touch {marker}") + b".")
    assert "refused: it names posix.system" in read_refused(path)
    path = write_archive(tmp_path / "b.pth", b"\x80\x04}" + text("k") + call(kind, f"touch {marker}") + b"s.")
    assert "a dict without arrays; it has k; it names posix.system" in read_refused(path)
    assert not marker.exists()


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_python_pickles_that_call_next_to_arrays(kind, protocol, tmp_path):
    marker = tmp_path / "executed"
    evil = [Evil(os.system, f"touch {marker}"), Evil(eval, f"open({str(marker)!r}, 'w')"), Evil(os.mkdir, str(marker))]
    evil.append(Evil(subprocess.Popen, ["touch", str(marker)]))
    value = {
        "model": {"w": optional.torch.ones(1)},
        "evil": evil,
        "deep": Evil(print, Evil(os.system, f"touch {marker}")),
    }
    optional.torch.save(
        value, tmp_path / "a.pth", pickle_protocol=protocol, _use_new_zipfile_serialization=FORMATS[kind]
    )
    assert set(read_checkpoint(tmp_path / "a.pth")) == {"w"}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"w": np.ones(1), "evil": evil}, protocol))
    assert set(read_checkpoint(tmp_path / "a.pkl")) == {"w"}
    assert not marker.exists()


def test_an_array_in_a_call_cannot_be_read(tmp_path):
    opcodes = SYSTEM + b"(" + tensor_opcodes() + b"tR"
    array = open_contents(write_beside_array(tmp_path / "a.pth", opcodes)).arrays["evil"]
    with pytest.raises(InputError, match=r"^evil: built by posix\.system, which is not supported"):
        array.read()


@pytest.mark.parametrize(
    "opcodes",
    [
        b"\x82\x07",  # EXT1: a registered extension
        b"\x83\x07\x00",
        b"\x84\x07\x00\x00\x00",
        b"\x82\x07)R",
        b"\x8f(K\x01K\x02\x90",  # a set
        b"(K\x01K\x02\x91",  # a frozenset
        b"\x8f(\x8f]}\x90",  # a set of a set, a list and a dict
        b"}\x8fNs",  # a set as a key
        b"}" + b"((K\x01tt" + b"Ns",
        b"}cbuiltins\nset\n(]tRNs",
        b"}q\x05" + text("self") + b"h\x05s",  # a dict that holds itself
        b"]q\x05h\x05a",
        b"cmod\nCls\n)\x81q\x05}" + text("self") + b"h\x05sb",  # an object that holds itself
        b"cmod\nCls\n)\x81q\x05h\x05a",
        b"(" * 20_000 + b"t" * 20_000,  # nested deep: tuples, lists, dicts, objects
        b"]" * 20_000 + b"a" * 19_999,
        b"}" + (text("k") + b"}") * 5_000 + b"s" * 5_000,
        b"cmod\nCls\nq\x050(" + b"h\x05(" * 20_000 + b"tR" * 20_000 + b"t",
        b"cmod\nCls\n)\x81" + b"cmod\nCls\n)\x81" * 5_000 + b"b" * 5_000,
        b"}" + b"(" * 20_000 + b"t" * 20_000 + b"Ns",  # as a key
        b"\x8a\xff" + b"\x7f" * 255,  # a number of 2040 bits
        b"}" + b"\x8b" + struct.pack("<i", 10**6) + b"\x7f" * 10**6 + b"Ns",  # a number of a megabyte as a key
        b"\x96" + struct.pack("<Q", 3) + b"abc",  # a bytearray
        b"N0" * 1000 + b"N20",  # POP and DUP
    ],
)
def test_odd_values_next_to_an_array_do_no_harm(opcodes, tmp_path):
    opened = open_contents(write_beside_array(tmp_path / "a.pth", opcodes))
    np.testing.assert_array_equal(opened.arrays["w"].read(), [0, 1])
    repr(opened.values)


@pytest.mark.parametrize(
    ("opcodes", "message"),
    [
        (b"cmod\nCls\nQ", "something else than a storage|damaged"),  # persistent ids that are no storages
        (b"(" + text("storage") + b"cmod\nCls\n" + text("0") + text("cpu") + b"K\x01tQ", "else than a storage"),
        (b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + b"K\x02tQ", "two ways"),
        (b"Pstorage\n", "damaged"),
        (b"Nq\x05" + b"h\x05\x85q\x05" * 500 + b"Q", "damaged|else than"),
        (b"\x97", "NEXT_BUFFER"),
        (b"NR", "damaged"),
        (b"K\x01)R", "a call of a int"),
        (b"cmod\nCls\nNR", "a call of a Global"),
        (text("a") + b"K\x01\x93", "without a name"),
        (text("a" * 2000) + text("b") + b"\x93", "without a name"),
        (b"K\x01(K\x02e", "items added to a int"),
        (b"](K\x01K\x02u", "items set on a list"),
        (b"(K\x01" + tensor_opcodes() + b"\x90", "damaged|items added"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n(K\x01tR", "damaged"),
    ],
)
def test_damaged_opcodes_are_refused(opcodes, message, tmp_path):
    with pytest.raises(InputError, match=message):
        open_contents(write_beside_array(tmp_path / "a.pth", opcodes))


def bomb(push: bytes, repeat: bytes, count: int) -> bytes:
    """Return opcodes that put a value in the memo and then repeat something with it, collected in a list."""
    return b"](" + push + b"r\x05\x00\x00\x00" + repeat * count + b"e"


GET = b"j\x05\x00\x00\x00"
LARGE = b"X" + struct.pack("<I", 10**6) + b"a" * 10**6
BOMBS = {
    "dicts copied": bomb(b"](" + b"K\x01K\x01\x86" * 10_000 + b"e", b"ccollections\nOrderedDict\n" + GET + b"\x85R", 10_000),
    "bytes encoded": bomb(LARGE, b"c_codecs\nencode\n(" + GET + text("latin1") + b"tR", 10_000),
    "global names": bomb(LARGE, GET + GET + b"\x93", 10_000),
    "axes": tensor_opcodes(size=(1,) * 100_000, stride=(1,) * 100_000),
    "shared tuples": bomb(b"N", GET + GET + b"\x86r\x05\x00\x00\x00", 200),
    "shared tuple as a reference": bomb(b"N", GET + GET + b"\x86r\x05\x00\x00\x00", 200) + b"Q",
    "shared lists of values": b"]" + b"".join(b"r\x05\x00\x00\x000](" + GET * 50 + b"e" for _ in range(8)),
    "shared tensors": b"]" + tensor_opcodes() + b"a" + b"".join(b"r\x05\x00\x00\x000](" + GET * 50 + b"e" for _ in range(8)),
    "long names": b"}" + (text("k" * 900) + b"}") * 40 + text("w") + tensor_opcodes() + b"s" * 41,
    "memo": b"Nr\xff\xff\xff\x7f",
}  # fmt: skip


READ = ("shared tuples", "shared lists of values", "memo")


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_read_or_refused_at_once(name, tmp_path, monkeypatch):
    monkeypatch.setattr(values, "MAX_VALUES", 50_000)
    monkeypatch.setattr(contents, "MAX_ENTRIES", 10_000)
    path = write_beside_array(tmp_path / "a.pth", BOMBS[name])
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    if name in READ:
        np.testing.assert_array_equal(open_contents(path).arrays["w"].read(), [0, 1])
    else:
        assert len(read_refused(path)) < 1000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000
    assert time.monotonic() - start < 30


def test_modules_in_themselves_are_refused(tmp_path):
    module = optional.torch.nn.Sequential(optional.torch.nn.Linear(1, 1))
    module._modules["self"] = module
    with pytest.raises(InputError, match="in themselves"):
        open_contents(write(module, tmp_path / "a.pth"))
    bomb = optional.torch.nn.Linear(1, 1)
    for _ in range(30):
        bomb = optional.torch.nn.Sequential(bomb, bomb)
    with pytest.raises(InputError, match="nested too deep"):
        open_contents(write(bomb, tmp_path / "b.pth"))


def test_arrays_nested_too_deep_are_refused(tmp_path):
    opcodes = (b"}" + text("k")) * 100 + tensor_opcodes() + b"s" * 100
    with pytest.raises(InputError, match="nested too deep"):
        open_contents(write_beside_array(tmp_path / "a.pth", opcodes))


def test_storages_inside_a_pickle_are_checked(tmp_path):
    """A plain pickle holds the bytes of a legacy file for each storage; crafted ones are refused."""
    prefix = b"\x80\x04ctorch.storage\n_load_from_bytes\n"
    for argument in (b"K\x01", b"C\x00", b"C\x05abcde", text("x"), b"C\x03\x80\x02."):
        path = tmp_path / "a.pkl"
        path.write_bytes(prefix + argument + b"\x85R.")
        read_refused(path)


def numpy_array(dtype: bytes, shape: bytes, data: bytes) -> bytes:
    build = b"(K\x01" + shape + dtype + b"\x89" + data + b"tb"
    return b"cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tC\x01btR" + build


@pytest.mark.parametrize(
    ("code", "shape", "data"),
    [
        ("O", b"(K\x01t", b"C\x08" + bytes(8)),
        ("f4", b"(K\x03t", b"C\x08" + bytes(8)),
        ("f4", b"(" + number(-2) + b"t", b"C\x08" + bytes(8)),
        ("f4", b"(" + number(2**62) + number(2**62) + b"t", b"C\x08" + bytes(8)),
        ("f4", b"N", b"C\x08" + bytes(8)),
        ("f3", b"(K\x02t", b"C\x06" + bytes(6)),
        ("f4,f4", b"(K\x01t", b"C\x08" + bytes(8)),
        ("f4", b"(K\x02t", b"]N" + b"a"),
        ("U999999999", b"(K\x02t", b"C\x08" + bytes(8)),
    ],
)
def test_crafted_numpy_arrays_are_left_out(code, shape, data, tmp_path):
    dtype = b"cnumpy\ndtype\n(" + text(code) + b"\x89\x88tR"
    opened = open_contents(write_beside_array(tmp_path / "a.pth", numpy_array(dtype, shape, data)))
    assert list(opened.arrays) == ["w"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*FORMATS, "module", "pickle"])
def test_fuzzed_objects_are_read_or_refused(kind, tmp_path):
    """6,000 randomly damaged files with modules, numpy arrays and objects never run anything nor raise something else."""
    marker = tmp_path / "executed"
    evil = Evil(os.system, f"touch {marker}")
    value = {
        "m": optional.torch.nn.BatchNorm1d(2),
        "n": np.ones(2),
        "s": {1},
        "evil": evil,
        "l": [optional.torch.ones(1).half()],
    }
    intact, path = tmp_path / "a.pth", tmp_path / "b.pkl"
    if kind == "pickle":
        intact.write_bytes(pickle.dumps(value, 4))
    else:
        write(value["m"] if kind == "module" else value, intact, "zip" if kind == "module" else kind)
    assert count_refusals(intact.read_bytes(), path, 6000) > 500
    assert not marker.exists()
