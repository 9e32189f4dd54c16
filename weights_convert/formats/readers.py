"""Reading checkpoint files as {name: array}. The format is detected from the content, not from the file name."""

import functools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from vit_jax.errors import InputError
from weights_convert.formats.arrays import DTYPES, LazyArray
from weights_convert.formats.npz_files import is_npz, open_npz
from weights_convert.formats.torch_files import LEGACY_START, ZIP_START, open_legacy, open_zip

SAFETENSORS_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}
# Keys under which training scripts nest a model's weights; the first present wins.
WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "module", "teacher", "student")
# Names of the weights in a folder; the first present wins.
WEIGHTS = ("model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors", "open_clip_pytorch_model.bin")
MAX_DEPTH, MAX_NODES = 8, 200_000


def open_checkpoint(path: str | os.PathLike) -> dict[str, LazyArray]:
    """Open a .pth/.pt/.bin (zip or legacy), .safetensors or .npz file; return its arrays by name, values unread.

    A folder is read as Hugging Face writes it, with its weights in one file or in shards.
    Raises InputError, naming the file, if it is missing, damaged, hostile or of another format.
    """
    path = Path(path)
    if path.is_dir():
        return _open_folder(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    with open(path, "rb") as file:
        start = file.read(32)
    try:
        if start.startswith(ZIP_START):
            return open_npz(path) if is_npz(path) else find_state_dict(open_zip(path))
        if start[:1] == b"\x80" and LEGACY_START in start:
            return find_state_dict(open_legacy(path))
        if start[8:9] == b"{":
            return _open_safetensors(path)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    what = "an empty file" if not start else "not a checkpoint"
    raise InputError(f"{path}: {what}; supported are PyTorch's .pth/.pt/.bin, .safetensors and .npz")


def read_checkpoint(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Read a .pth/.pt/.bin (zip or legacy), .safetensors or .npz file as {name: array}. torch is not needed.

    A nested state dict ({"model": {...}, "epoch": 3}) is unwrapped, other nested dicts get dotted names, and values
    that are no arrays are left out. bfloat16 becomes ml_dtypes.bfloat16. Raises InputError as open_checkpoint does.
    """
    opened = open_checkpoint(path)
    try:
        return {name: array.read() for name, array in opened.items()}
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _open_folder(folder: Path) -> dict[str, LazyArray]:
    for name in WEIGHTS:
        if (folder / f"{name}.index.json").is_file():
            return _open_sharded(folder / f"{name}.index.json")
        if (folder / name).is_file():
            return open_checkpoint(folder / name)
    raise InputError(f"{folder}: a folder without weights ({', '.join(WEIGHTS)}); give the file itself")


def _open_sharded(index: Path) -> dict[str, LazyArray]:
    """Open the shards that an index file lists; they are next to it."""
    try:
        shards = json.loads(index.read_text())["weight_map"]
        if not all(isinstance(file, str) and Path(file).name == file for file in shards.values()):
            raise ValueError("its shards must be in the same folder")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{index}: not an index of weights ({error})") from error
    opened = {file: open_checkpoint(index.parent / file) for file in sorted(set(shards.values()))}
    missing = [name for name, file in shards.items() if name not in opened[file]]
    if missing:
        raise InputError(f"{index.parent / shards[missing[0]]}: has no {missing[0]}, which {index.name} lists there")
    return {name: opened[file][name] for name, file in shards.items()}


def _open_safetensors(path: Path) -> dict[str, LazyArray]:
    def read(name: str) -> np.ndarray:
        with safe_open(path, framework="numpy") as file:
            return file.get_tensor(name)

    opened: dict[str, LazyArray] = {}
    try:
        with safe_open(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118
                piece = file.get_slice(name)
                dtype = SAFETENSORS_DTYPES.get(piece.get_dtype())
                if dtype is None:
                    raise InputError(f"{name} has the unsupported type {piece.get_dtype()}")
                shape = tuple(piece.get_shape())
                opened[name] = LazyArray(shape, DTYPES[dtype], functools.partial(read, name))
    except SafetensorError as error:
        raise InputError(f"truncated or damaged safetensors file ({error})") from error
    return opened


def find_state_dict(tree: Any) -> dict[str, LazyArray]:
    """Return the model's arrays in an object that a training script saved. Raises InputError if there are none."""
    if isinstance(tree, LazyArray):
        raise InputError("a single tensor, not a model's state dict")
    for _ in range(MAX_DEPTH):
        if not isinstance(tree, dict) or any(isinstance(value, LazyArray) for value in tree.values()):
            break
        tree = next((tree[key] for key in WRAPPERS if isinstance(tree.get(key), dict)), tree)
    arrays: dict[str, LazyArray] = {}
    for count, (name, node) in enumerate(_walk(tree, "", depth=0)):
        if count > MAX_NODES:
            raise InputError(f"more than {MAX_NODES} entries: no checkpoint has so many")
        if isinstance(node, LazyArray):
            arrays[name] = node
    if not arrays:
        what = "a dict" if isinstance(tree, dict) else "a pickled object"
        raise InputError(f"{what} without arrays; save model.state_dict() instead")
    return arrays


def _walk(tree: Any, prefix: str, depth: int) -> Iterator[tuple[str, Any]]:
    yield prefix, tree
    if isinstance(tree, dict):
        if depth > MAX_DEPTH:
            raise InputError(f"dicts nested more than {MAX_DEPTH} deep")
        for key, value in tree.items():
            yield from _walk(value, f"{prefix}.{key}" if prefix else str(key), depth + 1)
