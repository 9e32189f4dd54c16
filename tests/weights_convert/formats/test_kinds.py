"""Files and folders of other kinds are recognised and named with a remedy; folders of Hugging Face's cache are followed."""

import gzip
import io
import lzma
import tarfile
import zipfile

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.weights_convert.formats.crafted import read_refused
from vit_jax import InputError
from weights_convert import read_checkpoint
from weights_convert.formats import find_snapshot, open_contents
from weights_convert.formats.kinds import describe_folder


def npy() -> bytes:
    file = io.BytesIO()
    np.save(file, np.ones(3))
    return file.getvalue()


def tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("weights.pth"))
    return file.getvalue()


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 346284714\n"
FILES = {
    "lfs.pth": (LFS, "a Git LFS pointer to a file of 346,284,714 bytes, .*`git lfs pull`"),
    "lfs.safetensors": (LFS[:60], "a Git LFS pointer to a file, not the file itself"),
    "page.pth": (b"\n<!DOCTYPE html><html><body>Sign in</body></html>", "a web page: .*download the file again"),
    "page.bin": (b"<html lang=en>", "a web page"),
    "weights.h5": (b"\x89HDF\r\n\x1a\n" + bytes(64), "an HDF5 file, as Keras writes .h5; save its arrays by name"),
    "renamed.pth": (b"\x89HDF\r\n\x1a\n" + bytes(64), "an HDF5 file"),
    "model.onnx": (b"\x08\x07\x12\x07pytorch" + bytes(64), "an ONNX model; give the checkpoint it was exported from"),
    "model.gguf": (b"GGUF\x03\x00\x00\x00" + bytes(64), "a GGUF file"),
    "array.npy": (npy(), "a single numpy array; save all arrays by name with numpy.savez"),
    "model.tflite": (b"\x1c\x00\x00\x00TFL3" + bytes(64), "a TensorFlow Lite model"),
    "a.tar": (tar(), "a tar archive; unpack it"),
    "b.pth": (tar(), "a tar archive; unpack it"),
    "a.tar.gz": (gzip.compress(tar()), "a gzip archive; unpack it"),
    "a.xz": (lzma.compress(b"x"), "an xz archive; unpack it"),
    "saved_model.pb": (b"\x08\x01" + bytes(64), "a TensorFlow graph"),
    "empty.pth": (b"", "an empty file"),
    "picture.png": (b"\x89PNG\r\n\x1a\n" + bytes(64), "not a checkpoint; supported are .*msgpack"),
    "old.pkl": (b"cposix\nsystem\n(S'ls'\ntR.", "refused: it names posix.system"),
}


@pytest.mark.parametrize("name", FILES)
def test_files_of_other_kinds_are_named(name, tmp_path):
    content, message = FILES[name]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_checkpoint(path)
    assert "\n" not in read_refused(path)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (["config.json", "metadata.json", "model.weights.h5"], "a Keras model"),
        (["archive/models/model.json"], "without a data.pkl"),
        (["a/archive_format", "a/models/model.json"], "an exported PyTorch program"),
    ],
)
def test_zip_archives_of_other_kinds_are_named(members, message, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        for member in members:
            archive.writestr(member, "{}")
    assert message in read_refused(tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["adapter_config.json", "adapter_model.safetensors"], r"a LoRA adapter \(PEFT\), .*--base"),
        (["saved_model.pb", "variables/variables.index"], "a TensorFlow SavedModel"),
        (["tf_model.h5"], "weights of TensorFlow only"),
        (["_CHECKPOINT_METADATA", "_METADATA"], "an orbax checkpoint"),
        (["manifest.ocdbt"], "an orbax checkpoint"),
        (["checkpoint", "model.ckpt-1.index"], "a TensorFlow checkpoint"),
        ([".metadata", "__0_0.distcp"], "a distributed PyTorch checkpoint"),
        (["best.pth", "notes.txt"], "a folder without weights .*; give the file itself, such as best.pth"),
        ([], "a folder without weights"),
    ],
)
def test_folders_of_other_kinds_are_named(files, message, tmp_path):
    for file in files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    with pytest.raises(InputError, match=message):
        open_contents(tmp_path)


def test_an_adapter_next_to_the_merged_weights_is_not_in_the_way(tmp_path):
    (tmp_path / "adapter_config.json").touch()
    save_file({"w": np.ones(2)}, tmp_path / "model.safetensors")
    assert set(read_checkpoint(tmp_path)) == {"w"}
    assert "LoRA" in describe_folder(tmp_path)


def make_cache(folder, snapshots, main=None):
    for number, name in enumerate(snapshots):
        (folder / "snapshots" / name).mkdir(parents=True)
        blob = folder / "blobs" / name
        blob.parent.mkdir(exist_ok=True)
        save_file({"w": np.full(2, number)}, blob)
        (folder / "snapshots" / name / "model.safetensors").symlink_to(f"../../blobs/{name}")
    if main is not None:
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text(main)
    return folder


def test_cache_folders_of_hugging_face_are_followed(tmp_path):
    only = make_cache(tmp_path / "models--a--only", ["123"])
    assert find_snapshot(only) == only / "snapshots" / "123"
    np.testing.assert_array_equal(read_checkpoint(only)["w"], [0, 0])
    np.testing.assert_array_equal(read_checkpoint(only / "snapshots")["w"], [0, 0])
    main = make_cache(tmp_path / "models--a--main", ["123", "456"], main="456\n")
    np.testing.assert_array_equal(read_checkpoint(main)["w"], [1, 1])
    np.testing.assert_array_equal(read_checkpoint(main / "snapshots" / "123")["w"], [0, 0])
    elsewhere = tmp_path / "folder"
    elsewhere.mkdir()
    assert find_snapshot(elsewhere) == elsewhere


def test_cache_folders_without_a_choice_are_refused(tmp_path):
    several = make_cache(tmp_path / "models--a--b", ["123", "456"], main="789")
    with pytest.raises(InputError, match=r"snapshots: several snapshots \(123, 456\); give one of these folders"):
        open_contents(several)
    (tmp_path / "models--a--c" / "snapshots").mkdir(parents=True)
    with pytest.raises(InputError, match="no snapshot"):
        open_contents(tmp_path / "models--a--c")
