"""Folders that hold a checkpoint: Hugging Face's, with weights in one file or in shards, and its cache."""

import json
from collections.abc import Callable
from pathlib import Path

from vit_jax.errors import InputError
from weights_convert.formats.contents import Contents
from weights_convert.formats.kinds import describe_folder

# Names of the weights in a folder; the first present wins.
WEIGHTS = (
    "model.safetensors",
    "pytorch_model.bin",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
    "flax_model.msgpack",
)
CACHE_PREFIX = "models--"
CHECKPOINT_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".npz", ".msgpack")


def find_snapshot(path: Path) -> Path:
    """Return the snapshot in a cache folder of Hugging Face, models--owner--name; another path as it is.

    It is the one that refs/main names, or the only one. Raises InputError if there is none, or several.
    """
    if path.name == "snapshots" and path.parent.name.startswith(CACHE_PREFIX):
        path = path.parent
    if not path.name.startswith(CACHE_PREFIX) or not (path / "snapshots").is_dir():
        return path
    snapshots = {folder.name: folder for folder in sorted((path / "snapshots").iterdir()) if folder.is_dir()}
    main = path / "refs" / "main"
    revision = main.read_text(errors="replace").strip() if main.is_file() else ""
    if revision in snapshots:
        return snapshots[revision]
    if len(snapshots) != 1:
        problem = (
            f"several snapshots ({', '.join(snapshots)}); give one of these folders" if snapshots else "no snapshot"
        )
        raise InputError(f"{path / 'snapshots'}: {problem}")
    return next(iter(snapshots.values()))


def open_folder(folder: Path, open_file: Callable[[Path], Contents]) -> Contents:
    """Open the weights in a folder by `open_file`. Raises InputError if there are none, saying what the folder is."""
    for name in WEIGHTS:
        if (folder / f"{name}.index.json").is_file():
            return _open_sharded(folder / f"{name}.index.json", open_file)
        if (folder / name).is_file():
            return open_file(folder / name)
    if description := describe_folder(folder):
        raise InputError(f"{folder}: {description}")
    others = sorted(file.name for file in folder.iterdir() if file.suffix in CHECKPOINT_SUFFIXES)
    known = f", such as {', '.join(others[:3])}" if others else ""
    raise InputError(f"{folder}: a folder without weights ({', '.join(WEIGHTS)}); give the file itself{known}")


def _open_sharded(index: Path, open_file: Callable[[Path], Contents]) -> Contents:
    """Open the shards that an index file lists; they are next to it."""
    try:
        shards = json.loads(index.read_text())["weight_map"]
        if not all(isinstance(file, str) and Path(file).name == file for file in shards.values()):
            raise ValueError("its shards must be in the same folder")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{index}: not an index of weights ({error})") from error
    opened = {file: open_file(index.parent / file) for file in sorted(set(shards.values()))}
    missing = [name for name, file in shards.items() if name not in opened[file].arrays]
    if missing:
        raise InputError(f"{index.parent / shards[missing[0]]}: has no {missing[0]}, which {index.name} lists there")
    return Contents(
        {name: opened[file].arrays[name] for name, file in shards.items()},
        {key: value for contents in opened.values() for key, value in contents.values.items()},
        {name: opened[file].keys[name] for name, file in shards.items()},
    )
