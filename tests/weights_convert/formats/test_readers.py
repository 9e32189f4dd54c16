"""Reading checkpoints without torch, compared with torch; hostile and damaged files."""

import collections
import os
import resource
import struct
import zipfile

import ml_dtypes
import numpy as np
import pytest

from tests.optional import load, torch
from tests.weights_convert.formats.crafted import FORMATS, Evil, read_refused, tensor_pickle, write, write_archive
from vit_jax import InputError
from weights_convert import read_checkpoint
from weights_convert.formats import contents

safetensors_torch = load("safetensors.torch")


def sample() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    base = torch.randn(6, 8)
    return {
        "base": base,
        "view": base[1:4, 2:7],
        "transposed": base.T,
        "strided": base[::2, ::3],
        "expanded": torch.randn(3, 1).expand(3, 5),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 4),
        "half": torch.randn(3, 2).half(),
        "double": torch.randn(3).double(),
        "long": torch.arange(5),
        "bytes": torch.arange(5, dtype=torch.uint8),
        "bool": torch.tensor([True, False]),
        "parameter": torch.nn.Parameter(torch.randn(2, 2)),
    }


@pytest.mark.parametrize("kind", FORMATS)
def test_every_kind_of_tensor(kind, tmp_path):
    tensors = sample()
    read = read_checkpoint(write(tensors, tmp_path / "a.pth", kind))
    assert set(read) == set(tensors)
    for name, tensor in tensors.items():
        expected = tensor.detach().numpy()
        assert read[name].dtype == expected.dtype
        np.testing.assert_array_equal(read[name], expected, strict=True)


@pytest.mark.parametrize("kind", FORMATS)
def test_bfloat16(kind, tmp_path):
    tensor = torch.randn(4, 3).bfloat16()
    read = read_checkpoint(write({"w": tensor}, tmp_path / "a.pth", kind))["w"]
    assert read.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(read.astype(np.float32), tensor.float().numpy())


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("kind", FORMATS)
def test_pickle_protocols_and_state_dicts(kind, protocol, tmp_path):
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    path = tmp_path / "a.pth"
    torch.save(module.state_dict(), path, pickle_protocol=protocol, _use_new_zipfile_serialization=FORMATS[kind])
    read = read_checkpoint(path)
    for name, tensor in module.state_dict().items():
        np.testing.assert_array_equal(read[name], tensor.numpy(), strict=True)


@pytest.mark.parametrize("kind", FORMATS)
def test_state_dicts_nested_by_training_scripts(kind, tmp_path):
    module = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    import argparse

    wrapped = {
        "model": module.state_dict(),
        "optimizer": optimizer.state_dict(),
        "epoch": 3,
        "args": argparse.Namespace(lr=1e-4, betas=(0.9, 0.999)),
        "best": np.float64(0.91),
        "counts": collections.Counter("aab"),
    }
    read = read_checkpoint(write(wrapped, tmp_path / "a.pth", kind))
    assert set(read) == {"weight", "bias"}
    nested = read_checkpoint(write({"a": {"b": torch.ones(2)}, "c": torch.zeros(1)}, tmp_path / "b.pth", kind))
    assert set(nested) == {"a.b", "c"}
    deeper = {"state_dict": {"model": module.state_dict()}, "epoch": 1}
    assert set(read_checkpoint(write(deeper, tmp_path / "c.pth", kind))) == {"weight", "bias"}


def test_safetensors(tmp_path):
    tensors = {name: t.detach().contiguous().clone() for name, t in sample().items()}
    tensors["brain"] = torch.randn(3).bfloat16()
    safetensors_torch.save_file(tensors, tmp_path / "a.safetensors")
    read = read_checkpoint(tmp_path / "a.safetensors")
    assert set(read) == set(tensors)
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(read[name].astype(np.float64), tensor.double().numpy())


def test_the_name_does_not_matter(tmp_path):
    path = write({"w": torch.ones(2)}, tmp_path / "weights.safetensors")
    assert set(read_checkpoint(path)) == {"w"}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(
    ("value", "name"),
    [
        (lambda p: Evil(os.system, f"touch {p}"), "posix.system"),
        (lambda p: Evil(eval, f"open({str(p)!r}, 'w')"), "builtins.eval"),
        (lambda p: Evil(os.mkdir, str(p)), "posix.mkdir"),
        (lambda p: {"model": {"w": 1.0, "x": Evil(print, Evil(os.system, f"touch {p}"))}}, "builtins.print"),
        (lambda p: {"w": torch.nn.ReLU()}, "torch.nn.modules.activation.ReLU"),
    ],
)
def test_globals_are_refused_by_name(kind, value, name, tmp_path):
    marker = tmp_path / "executed"
    path = write(value(marker), tmp_path / "evil.pth", kind)
    assert name in read_refused(path).replace("__builtin__", "builtins")
    assert not marker.exists()


def test_the_handwritten_pickle_is_read(tmp_path):
    values = np.arange(4, dtype=np.float32)
    path = write_archive(tmp_path / "a.pth", tensor_pickle(), **{"0": values.tobytes()})
    np.testing.assert_array_equal(read_checkpoint(path)["w"], [0, 1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(size=(5,)), "reaches element 4"),
        (dict(size=(2,), offset=3), "reaches element 4"),
        (dict(size=(2,), offset=-1), "offset -1"),
        (dict(size=(2,), stride=(-1,)), r"strides \(-1,\)"),
        (dict(size=(-2,)), r"shape \(-2,\)"),
        (dict(size=(2, 2)), "strides"),
        (dict(size=(2**40,), stride=(0,)), "repeats a storage"),
        (dict(size=(2**62, 2**62), stride=(0, 0)), "repeats a storage"),
        (dict(count=2**50), "missing or of another size"),
        (dict(count=-4), "storage of -4 values"),
    ],
)
def test_tensors_outside_their_storage(arguments, message, tmp_path):
    path = write_archive(tmp_path / "a.pth", tensor_pickle(**arguments), **{"0": bytes(16)})
    with pytest.raises(InputError, match=message):
        read_checkpoint(path)


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02r\xff\xff\xff\x7f.",  # a memo index that would claim 16 GiB
        b"\x80\x02}r\xff\xff\xff\x7f.",
        b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x0f.",  # a string of 2^60 bytes
        b"\x80\x02X\xff\xff\xff\xff.",
        b"\x80\x02\x8b\xff\xff\xff\x7f.",  # a number of 2 GiB
        b"\x80\x02(((((t.",
        b"\x80\x02R.",
        b"\x80\x02cposix\nsystem\n(X\x02\x00\x00\x00lstR.",
        b"(S'ls'\niposix\nsystem\n.",  # the INST opcode
        b"\x80\x02" + b"(" * 30_000 + b"t" * 30_000 + b".",  # tuples 30,000 deep
        b"\x80\x02}" + b"(" * 30_000 + b"t" * 30_000 + b"Ns.",  # and one as a dict's key
        b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.",  # a dict that holds itself
        b"\x80\x02}q\x00X\x05\x00\x00\x00modelh\x00s.",
        b"\x80\x02]q\x00h\x00a.",
        b"\x80\x02Q.",
        b"\x80\x02NQ.",
        b"",
        b"\x80\x02",
        b"\x80\x02K\x01.",
        b"\x80\x02}.",
    ],
)
def test_crafted_pickles(data, tmp_path):
    read_refused(write_archive(tmp_path / "a.pth", data, **{"0": bytes(16)}))


def test_a_bomb_of_shared_dicts(tmp_path, monkeypatch):
    monkeypatch.setattr(contents, "MAX_ENTRIES", 10_000)
    value = {"leaf": torch.ones(1)}
    for _ in range(7):
        value = {str(i): value for i in range(50)}  # 50^7 paths, 400 objects
    assert "entries" in read_refused(write(value, tmp_path / "a.pth"))


def test_a_compressed_archive_is_refused(tmp_path):
    path = tmp_path / "a.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", tensor_pickle(count=2**22))
        archive.writestr("archive/data/0", bytes(2**24))
    assert "compressed" in read_refused(path)


def test_archive_members_outside_the_folder_are_never_written(tmp_path):
    path = tmp_path / "a.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", tensor_pickle())
        archive.writestr("archive/data/0", bytes(16))
        archive.writestr("../../escaped", b"x")
    assert set(read_checkpoint(path)) == {"w"}
    assert not (tmp_path.parent / "escaped").exists()


def test_big_endian_files(tmp_path):
    path = tmp_path / "a.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", tensor_pickle())
        archive.writestr("archive/data/0", bytes(16))
        archive.writestr("archive/byteorder", "big")
    assert "big-endian" in read_refused(path)


@pytest.mark.parametrize("kind", FORMATS)
def test_truncated_anywhere(kind, tmp_path):
    intact = write({"a": torch.randn(50), "b": torch.randn(20)}, tmp_path / "a.pth", kind).read_bytes()
    path = tmp_path / "cut.pth"
    for length in range(0, len(intact), max(1, len(intact) // 60)):
        path.write_bytes(intact[:length])
        read_refused(path)


def test_flipped_bits_in_a_zip_are_detected(tmp_path):
    intact = write({"a": torch.randn(500)}, tmp_path / "a.pth").read_bytes()
    start = intact.index(b"archive/data/0") if b"archive/data/0" in intact else intact.index(b"/data/0")
    damaged = bytearray(intact)
    damaged[start + 1000] ^= 4
    path = tmp_path / "b.pth"
    path.write_bytes(damaged)
    assert "CRC" in read_refused(path)


def test_files_that_are_no_checkpoints(tmp_path):
    assert "no such file" in read_refused(tmp_path / "absent.pth")
    assert "a folder without weights" in read_refused(tmp_path)
    for content, message in [(b"", "an empty file"), (b"GIF89a" * 9, "not a checkpoint"), (b"PK\x03\x04xx", "zip")]:
        (tmp_path / "x.pth").write_bytes(content)
        assert message in read_refused(tmp_path / "x.pth")
    (tmp_path / "y").write_bytes(struct.pack("<Q", 10**15) + b"{}")
    assert "safetensors" in read_refused(tmp_path / "y")
    with zipfile.ZipFile(tmp_path / "z.pth", "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert "without a data.pkl" in read_refused(tmp_path / "z.pth")


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*FORMATS, "safetensors", "npz", "npz compressed"])
def test_fuzzed_files_are_read_or_refused(kind, tmp_path):
    """6,000 randomly damaged files are read or raise InputError; never another exception, nor much memory."""
    intact, tensors = tmp_path / "a.pth", {"a": torch.randn(4, 3), "b": torch.ones(2)}
    if kind in FORMATS:
        write({"model": tensors, "epoch": 3}, intact, kind)
    elif kind == "safetensors":
        safetensors_torch.save_file(tensors, intact)
    else:
        with open(intact, "wb") as file:
            (np.savez_compressed if "compressed" in kind else np.savez)(
                file, **{k: t.numpy() for k, t in tensors.items()}
            )
    original = intact.read_bytes()
    rng = np.random.default_rng(0)
    path = tmp_path / "b.pth"
    refusals, before = 0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(6000):
        data = bytearray(original)
        for _ in range(rng.integers(1, 5)):
            position = int(rng.integers(len(data)))
            data[position] = int(rng.integers(256))
        if rng.random() < 0.2:
            del data[int(rng.integers(len(data))) :]
        path.write_bytes(data)
        try:
            read_checkpoint(path)
        except InputError:
            refusals += 1
    assert refusals > 500
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 200_000, f"{grown} KiB more than before"
