"""Kinds of files and folders that are not checkpoints this library reads: recognised, to say what to do instead."""

import re
import zipfile
from pathlib import Path

SUPPORTED = "supported are PyTorch's .pth/.pt/.bin, .safetensors, .npz and Flax's .msgpack"
NEEDS_ARRAYS = "save its arrays by name with numpy.savez, or as .safetensors"
UNPACK = "unpack it and give the checkpoint inside"
START_BYTES = 512

# (offset, the bytes there, what the file is and the remedy)
SIGNATURES = (
    (0, b"\x89HDF\r\n\x1a\n", f"an HDF5 file, as Keras writes .h5; {NEEDS_ARRAYS}"),
    (0, b"GGUF", "a GGUF file, whose weights are quantized; give the checkpoint it was made from"),
    (0, b"\x93NUMPY", "a single numpy array; save all arrays by name with numpy.savez"),
    (4, b"TFL3", "a TensorFlow Lite model; give the checkpoint it was made from"),
    (0, b"\x1f\x8b", f"a gzip archive; {UNPACK}"),
    (0, b"BZh", f"a bzip2 archive; {UNPACK}"),
    (0, b"\xfd7zXZ\0", f"an xz archive; {UNPACK}"),
    (0, b"\x28\xb5\x2f\xfd", f"a zstd archive; {UNPACK}"),
    (0, b"7z\xbc\xaf\x27\x1c", f"a 7z archive; {UNPACK}"),
    (257, b"ustar", f"a tar archive; {UNPACK}"),
)
SUFFIXES = {
    ".onnx": "an ONNX model; give the checkpoint it was exported from",
    ".pb": f"a TensorFlow graph; {NEEDS_ARRAYS}",
    ".tar": f"a tar archive; {UNPACK}",
    ".pt2": "an exported PyTorch program; save model.state_dict() instead",
    ".index": f"a part of a TensorFlow checkpoint; {NEEDS_ARRAYS}",
}
# A file in the folder -> what the folder is and the remedy.
FOLDERS = {
    "adapter_model.safetensors": "a LoRA adapter (PEFT), which needs the base model: give it as --base",
    "adapter_config.json": "a LoRA adapter (PEFT), which needs the base model: give it as --base",
    "saved_model.pb": f"a TensorFlow SavedModel; {NEEDS_ARRAYS}",
    "tf_model.h5": f"weights of TensorFlow only (tf_model.h5); {NEEDS_ARRAYS}",
    "_CHECKPOINT_METADATA": f"an orbax checkpoint; {NEEDS_ARRAYS}",
    "_METADATA": f"an orbax checkpoint; {NEEDS_ARRAYS}",
    "manifest.ocdbt": f"an orbax checkpoint; {NEEDS_ARRAYS}",
    ".metadata": "a distributed PyTorch checkpoint; use torch.distributed.checkpoint.format_utils.dcp_to_torch_save",
    "checkpoint": f"a TensorFlow checkpoint; {NEEDS_ARRAYS}",
}
ZIP_MEMBERS = {
    "model.weights.h5": f"a Keras model; {NEEDS_ARRAYS}",
    "archive_format": "an exported PyTorch program; save model.state_dict() instead",
}


def describe_file(path: Path, start: bytes) -> str:
    """Return what a file is that no reader takes, and the remedy. start: its first START_BYTES."""
    if not start:
        return f"an empty file; {SUPPORTED}"
    if start.startswith(b"version https://git-lfs"):
        size = re.search(rb"\nsize (\d{1,18})\b", start)
        stored = f" of {int(size[1]):,} bytes" if size else ""
        return f"a Git LFS pointer to a file{stored}, not the file itself; run `git lfs pull` in its repository"
    if re.match(rb"(\xef\xbb\xbf)?\s*(<!doctype html|<html|<\?xml)", start, re.IGNORECASE):
        return "a web page: the download went wrong, perhaps for a login; download the file again"
    for offset, signature, description in SIGNATURES:
        if start[offset:].startswith(signature):
            return description
    return SUFFIXES.get(path.suffix.lower(), f"not a checkpoint; {SUPPORTED}")


def describe_zip(path: Path) -> str:
    """Return what a zip archive is that is neither torch's nor numpy's; "" if unknown."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError, OSError):
        return ""
    return next((text for member, text in ZIP_MEMBERS.items() if any(member in name for name in names)), "")


def describe_folder(folder: Path) -> str:
    """Return what a folder is that has no weights a reader takes, and the remedy; "" if unknown."""
    return next((text for name, text in FOLDERS.items() if (folder / name).exists()), "")
