"""Captioned pictures: COCO's own layout, Karpathy's splits of it, or a folder with a table of file and caption.

Everything is checked when it is opened: a training run should not stop hours later at a picture that was never there.
"""

import csv
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vit_jax import InputError
from vit_jax.data.decode import open_rgb
from vit_jax.data.folder import VAL_FOLDERS

SPLITS = ("train", "val", "test")
KARPATHY = {"train": ("train", "restval"), "val": ("val",), "test": ("test",)}  # restval is trained on, as is usual
TABLE = "captions.csv"
COLUMNS = ("file", "caption")


@dataclass(frozen=True)
class CaptionDataset:
    """One split: each picture once, with one caption or more. ids: COCO's numbers, or file names."""

    paths: tuple[Path, ...]
    captions: tuple[tuple[str, ...], ...]
    ids: tuple[int | str, ...]

    def __post_init__(self) -> None:
        if not len(self.paths) == len(self.captions) == len(self.ids):
            raise InputError(
                f"{len(self.paths)} paths, {len(self.captions)} lists of captions and {len(self.ids)} ids: "
                "a caption set has one of each for a picture"
            )

    def __len__(self) -> int:
        return len(self.paths)

    def open(self, index: int) -> Image.Image:
        """The picture at an index, upright RGB. Raises CorruptImageError naming the file."""
        return open_rgb(self.paths[index])

    def take(self, indices: Sequence[int] | np.ndarray) -> "CaptionDataset":
        """The set made of these pictures, in this order."""
        chosen = [int(index) for index in indices]
        paths, ids = tuple(self.paths[i] for i in chosen), tuple(self.ids[i] for i in chosen)
        return CaptionDataset(paths, tuple(self.captions[i] for i in chosen), ids)

    def pairs(self) -> list[tuple[int, str]]:
        """(picture's index, caption), every caption once: what one epoch of training goes through."""
        return [(index, caption) for index, some in enumerate(self.captions) for caption in some]


def open_captions(
    where: str | os.PathLike,
    split: str,
    *,
    images: str | os.PathLike | None = None,
    val_fraction: float = 0.2,
    seed: int = 0,
) -> CaptionDataset:
    """One split, train, val or test, of whatever captions lie at a path, told by what is there.

    A folder with annotations/captions_*.json is COCO's; a .json file is Karpathy's, whose pictures lie in `images` or
    else beside it; a .csv file, or a folder with captions.csv in it or in train/ and val/, is a table. Of a table
    without splits, val_fraction of the pictures, drawn from the seed, are val and test, the rest train.
    Raises InputError in one line for anything missing, empty or broken.
    """
    if split not in SPLITS:
        raise InputError(f"captions have no split {split!r}: one of {', '.join(SPLITS)}")
    path = Path(where)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if path.suffix.lower() == ".json":
        return read_karpathy(path, split, images=images)
    if path.is_dir() and (path / "annotations").is_dir():
        return read_coco(path, split)
    names = ["train"] if split == "train" else [split, *VAL_FOLDERS]
    if path.is_dir():
        inner = next((path / name / TABLE for name in names if (path / name / TABLE).is_file()), None)
        if inner is not None:
            return read_table(inner)
        path = path / TABLE
        if not path.is_file():
            raise InputError(f"{path.parent}: no captions in it (looked for annotations/, {TABLE}, {names[0]}/{TABLE})")
    train, val = _divided(read_table(path), val_fraction, seed)
    return train if split == "train" else val


def read_coco(folder: str | os.PathLike, split: str) -> CaptionDataset:
    """annotations/captions_{split}YEAR.json with the pictures in {split}YEAR/, by picture number.

    Pictures without a caption are left out. Raises InputError for a broken or missing file, a caption of a picture that
    is not listed, an empty caption, and a picture that is not there.
    """
    folder = Path(folder)
    files = sorted((folder / "annotations").glob(f"captions_{split}*.json"))
    if len(files) != 1:
        found = f"{len(files)} of them: {', '.join(file.name for file in files)}; keep one" if files else "none there"
        raise InputError(f"{folder / 'annotations'}: needs one captions_{split}*.json; {found}")
    file = files[0]
    content = _json(file)
    pictures = folder / file.stem.removeprefix("captions_")
    names = {
        _field(item, "id", int, file): _field(item, "file_name", str, file) for item in _list(content, "images", file)
    }
    captions: dict[int, list[str]] = {}
    for item in _list(content, "annotations", file):
        number = _field(item, "image_id", int, file)
        if number not in names:
            raise InputError(f"{file}: captions image {number}, which its images do not list")
        captions.setdefault(number, []).append(_caption(_field(item, "caption", str, file), f"{file}: image {number}"))
    order = sorted(captions)
    return _checked([pictures / names[n] for n in order], [captions[n] for n in order], order, file)


def read_karpathy(file: str | os.PathLike, split: str, *, images: str | os.PathLike | None = None) -> CaptionDataset:
    """Karpathy's dataset_*.json: images[].filepath, filename, split, sentences[].raw; train takes restval too.

    images: the folder that `filepath` is in, by default the file's own. Order and ids are the file's (cocoid, else
    the file name). Raises InputError as read_coco does.
    """
    file = Path(file)
    root = file.parent if images is None else Path(images)
    paths: list[Path] = []
    captions: list[list[str]] = []
    ids: list[int | str] = []
    for item in _list(_json(file), "images", file):
        name = _field(item, "filename", str, file)
        if _field(item, "split", str, file) not in KARPATHY[split]:
            continue
        raw = [_field(sentence, "raw", str, file) for sentence in _list(item, "sentences", file)]
        if not raw:
            raise InputError(f"{file}: image {name} has no caption; take it out of the file")
        paths.append(root / str(item.get("filepath") or "") / name)
        captions.append([_caption(text, f"{file}: image {name}") for text in raw])
        number = item.get("cocoid")
        ids.append(number if isinstance(number, int) else name)
    return _checked(paths, captions, ids, file)


def read_table(file: str | os.PathLike) -> CaptionDataset:
    """A CSV with the columns file and caption, by name, and a row for each caption; paths start at its own folder.

    Pictures come in the order of their first row; other columns are not read. Raises InputError naming the line for a
    row that is not whole, and as read_coco does.
    """
    file = Path(file)
    captions: dict[str, list[str]] = {}
    for line, row in _rows(file):
        name = row["file"]
        if name is None or row["caption"] is None or None in row:
            count = "more" if None in row else "fewer"
            raise InputError(
                f"{file}: line {line} has {count} columns than the header; quote captions that have commas"
            )
        if not name.strip():
            raise InputError(f"{file}: line {line} names no file")
        captions.setdefault(name.strip(), []).append(_caption(row["caption"], f"{file}: line {line}"))
    paths = [file.parent / name for name in captions]
    return _checked(paths, list(captions.values()), list(captions), file)


def _rows(file: Path) -> Iterator[tuple[int, dict[Any, Any]]]:
    """Rows by column with the number of the line each ends at; the header is checked."""
    try:
        with open(file, encoding="utf-8-sig", newline="") as text:
            reader = csv.DictReader(text)
            lacking = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
            if lacking:
                raise InputError(f"{file}: its first line has no column {lacking[0]!r}; begin with file,caption")
            for row in reader:
                yield reader.line_num, row
    except FileNotFoundError as error:
        raise InputError(f"{file}: no such file") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{file}: not a table of captions in UTF-8 ({error})") from error


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{file}: no such file") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: not JSON ({error}); fetch it anew") from error


def _list(content: Any, name: str, file: Path) -> list[Any]:
    value = content.get(name) if isinstance(content, dict) else None
    if not isinstance(value, list):
        raise InputError(f"{file}: has no list {name!r}; it is not a file of captions")
    return value


def _field(item: Any, name: str, kind: type, file: Path) -> Any:
    value = item.get(name) if isinstance(item, dict) else None
    if not isinstance(value, kind):
        raise InputError(f"{file}: an entry has no {name!r} ({str(item)[:60]}); it is not a file of captions")
    return value


def _caption(text: str, where: str) -> str:
    if not text.strip():
        raise InputError(f"{where}: an empty caption; fill it in or take it out")
    return text.strip()


def _checked(
    paths: Sequence[Path], captions: Sequence[list[str]], ids: Sequence[int | str], file: Path
) -> CaptionDataset:
    if not paths:
        raise InputError(f"{file}: no captions of this split in it")
    missing = [path for path in paths if not path.is_file()]
    if missing:
        more = f", and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(f"{missing[0]}: listed in {file} but not there{more}")
    return CaptionDataset(tuple(paths), tuple(tuple(some) for some in captions), tuple(ids))


def _divided(whole: CaptionDataset, fraction: float, seed: int) -> tuple[CaptionDataset, CaptionDataset]:
    """(rest, fraction of the pictures), each at least one, in the order that they had."""
    if len(whole) < 2:
        raise InputError(f"{whole.paths[0]}: the only picture; training and validation need one each")
    order = np.random.default_rng(seed).permutation(len(whole))
    count = min(max(1, round(fraction * len(whole))), len(whole) - 1)
    return whole.take(np.sort(order[count:])), whole.take(np.sort(order[:count]))
