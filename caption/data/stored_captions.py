"""The captions that a run trains on and is validated on, as a file, by which a resumed run recognizes them.

Texts are stored as hashes: the file says what changed, and holds no copy of the data.
"""

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from caption.data.captions import CaptionDataset
from vit_jax.errors import InputError
from vit_jax.json_files import describe_malformed, read_compressed_json, write_compressed_json

FORMAT = "caption_split/1"


class StoredCaptions(NamedTuple):
    """A split. names: ids of the images; captions: a hash for each; sizes: of the files, None without a file."""

    names: list[str]
    captions: list[str]
    sizes: list[int | None]


class CaptionSplits(NamedTuple):
    """The two splits of a run."""

    train: StoredCaptions
    val: StoredCaptions


def record_captions(train: CaptionDataset, val: CaptionDataset) -> CaptionSplits:
    """Return the splits of a run, to be stored."""
    return CaptionSplits(_record(train), _record(val))


def _record(captions: CaptionDataset) -> StoredCaptions:
    hashes = [hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:16] for texts in captions.captions]
    return StoredCaptions(list(map(str, captions.ids)), hashes, [_file_size(path) for path in captions.paths])


def _file_size(path: Path) -> int | None:
    with suppress(OSError):  # an image in memory; reading a file reports its error
        return os.stat(path).st_size
    return None


def write_captions(path: Path, splits: CaptionSplits) -> None:
    """Write the splits as compressed JSON, atomically."""
    write_compressed_json(path, FORMAT, {name: part._asdict() for name, part in splits._asdict().items()})


def read_captions(path: Path) -> CaptionSplits:
    """Read what write_captions wrote. Raises InputError naming a file that is damaged or of another format."""
    stored = read_compressed_json(path, FORMAT)
    try:
        return CaptionSplits(*(StoredCaptions(**stored[name]) for name in CaptionSplits._fields))
    except (KeyError, TypeError) as error:
        problem = describe_malformed(error)
        raise InputError(f"{path}: damaged ({problem}); restore the file, or start a new run") from error


def describe_changes(old: CaptionSplits, new: CaptionSplits) -> str:
    """Return the differences of the images and their captions as one line, "" if there are none."""
    before, after = _by_key(old), _by_key(new)
    shared = [key for key in before if key in after]
    gone, come = ([key for key in first if key not in second] for first, second in ((before, after), (after, before)))
    moved = {key.name for key in gone} & {key.name for key in come}
    parts = [
        _count([key.name for key in come if key.name not in moved], "images added"),
        _count([key.name for key in gone if key.name not in moved], "removed"),
        _count([key.name for key in shared if before[key].size != after[key].size], "replaced"),
        _count([key.name for key in shared if before[key].captions != after[key].captions], "captioned otherwise"),
        _count(list(moved), "on the other side of the split"),
    ]
    changes = ", ".join(part for part in parts if part)
    return changes or ("images in another order" if old != new else "")


class _Key(NamedTuple):
    """What identifies an image: two splits may have images of one name."""

    side: str
    name: str


class _Image(NamedTuple):
    captions: str
    size: int | None


def _by_key(splits: CaptionSplits) -> dict[_Key, _Image]:
    return {
        _Key(side, name): _Image(captions, size)
        for side, part in splits._asdict().items()
        for name, captions, size in zip(*part, strict=True)
    }


def _count(names: list[str], what: str) -> str:
    return f"{len(names):,} {what} (first: {min(names)})" if names else ""
