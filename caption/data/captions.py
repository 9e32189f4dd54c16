"""Captioned images: COCO's own layout, Karpathy's splits of it, or a folder with a table of file and caption.

Opening a data set checks that every image file exists, so that training does not stop at a missing one hours later.
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

from caption.data.entries import drop_repeated, parse_image_id
from vit_jax import InputError
from vit_jax.background import WHITE
from vit_jax.data.decode import open_rgb
from vit_jax.data.split_folders import TEST_FOLDERS, TRAIN_FOLDERS, VAL_FOLDERS
from vit_jax.data.unicode_names import FileNames, find_files

SPLITS = ("train", "val", "test")
KARPATHY = {
    "train": ("train", "restval"),
    "val": ("val",),
    "test": ("test",),
}  # training includes restval, as usual
TABLE = "captions.csv"
COLUMNS = ("file", "caption")


@dataclass(frozen=True)
class CaptionDataset:
    """One split: each image once, with one or more captions. ids: COCO's numbers, or file names."""

    paths: tuple[Path, ...]
    captions: tuple[tuple[str, ...], ...]
    ids: tuple[int | str, ...]

    def __post_init__(self) -> None:
        if not len(self.paths) == len(self.captions) == len(self.ids):
            raise InputError(
                f"{len(self.paths)} paths, {len(self.captions)} lists of captions and {len(self.ids)} ids: "
                "a caption data set has one of each per image"
            )

    def __len__(self) -> int:
        return len(self.paths)

    def open(self, index: int, *, background: str = WHITE, max_value: float | None = None) -> Image.Image:
        """Decode the image at an index, upright RGB on a background. Raises as vit_jax.data.open_rgb does."""
        return open_rgb(self.paths[index], background=background, max_value=max_value)

    def take(self, indices: Sequence[int] | np.ndarray) -> "CaptionDataset":
        """Return the data set of the images at these indices, in this order."""
        subset = [int(index) for index in indices]
        paths, ids = tuple(self.paths[i] for i in subset), tuple(self.ids[i] for i in subset)
        return CaptionDataset(paths, tuple(self.captions[i] for i in subset), ids)

    def pairs(self) -> list[tuple[int, str]]:
        """List (index of the image, caption) of every caption: the examples of one training epoch."""
        return [(index, caption) for index, captions in enumerate(self.captions) for caption in captions]


def open_captions(
    source: str | os.PathLike,
    split: str,
    *,
    images: str | os.PathLike | None = None,
    val_fraction: float = 0.2,
    seed: int = 0,
) -> CaptionDataset:
    """Open one split (train, val or test) of the captions at a path, whose layout is detected.

    A folder with annotations/captions_*.json is COCO's. A .json file is Karpathy's; its images are in `images`, or
    else in the file's own folder. A .csv file, or a folder with captions.csv in it or in train/ and val/, is a table.
    Of a table without splits, a random val_fraction of the images is both val and test, and the rest is train.
    Raises InputError, in one line, for missing, empty or invalid captions.
    """
    if split not in SPLITS:
        raise InputError(f"captions have no split {split!r}: one of {', '.join(SPLITS)}")
    path = Path(source)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if path.suffix.lower() == ".json":
        return read_karpathy(path, split, images=images)
    if path.is_dir() and (path / "annotations").is_dir():
        return read_coco(path, split)
    if path.is_dir():
        inner = _find_table(path, split)
        if inner is not None:
            return read_table(inner)
        path = path / TABLE
        if not path.is_file():
            raise InputError(f"{path.parent}: no captions in it (looked for annotations/, {TABLE}, {split}/{TABLE})")
    train, val = _hold_out(read_table(path), val_fraction, seed)
    return train if split == "train" else val


def _find_table(folder: Path, split: str) -> Path | None:
    """Return the table of a split in its folder, whose name may be any usual one, in any case."""
    names = TRAIN_FOLDERS if split == "train" else (split, *VAL_FOLDERS, *TEST_FOLDERS)
    folders = {path.name.lower(): path for path in sorted(folder.iterdir()) if path.is_dir()}
    tables = (folders[name] / TABLE for name in names if name in folders)
    return next((table for table in tables if table.is_file()), None)


def read_coco(folder: str | os.PathLike, split: str) -> CaptionDataset:
    """Read annotations/captions_{split}YEAR.json, with its images in {split}YEAR/; in the order of their numbers.

    Images without a caption are left out. Raises InputError for an invalid or missing file, a caption of an image that
    is not listed, an empty caption, and a missing image file.
    """
    folder = Path(folder)
    files = sorted((folder / "annotations").glob(f"captions_{split}*.json"))
    if len(files) != 1:
        problem = f"it has {', '.join(file.name for file in files)}; keep one" if files else "it has none"
        raise InputError(f"{folder / 'annotations'}: needs one captions_{split}*.json; {problem}")
    file = files[0]
    content = _read_json(file)
    images = folder / file.stem.removeprefix("captions_")
    names: dict[int | str, str] = {}
    for item in _list(content, "images", file):
        number, name = _image_id(item, "id", file), _field(item, "file_name", str, file)
        if names.setdefault(number, name) != name:
            raise InputError(f"{file}: the images {names[number]} and {name} have one id, {number}; correct the file")
    captions: dict[int | str, list[str]] = {}
    for item in drop_repeated(_list(content, "annotations", file), file):
        number = _image_id(item, "image_id", file)
        if number not in names:
            raise InputError(f"{file}: captions image {number}, which its images do not list")
        captions.setdefault(number, []).append(_caption(_field(item, "caption", str, file), f"{file}: image {number}"))
    order = sorted(captions, key=lambda number: (isinstance(number, str), number))
    return _make_dataset([images / names[n] for n in order], [captions[n] for n in order], order, file)


def read_karpathy(file: str | os.PathLike, split: str, *, images: str | os.PathLike | None = None) -> CaptionDataset:
    """Read Karpathy's dataset_*.json: images[].filepath, filename, split, sentences[].raw; train includes restval.

    images: the folder that `filepath` is relative to, by default the file's own. Order and ids are the file's (cocoid,
    else the file name). Raises InputError as read_coco does.
    """
    file = Path(file)
    root = file.parent if images is None else Path(images)
    paths: list[Path] = []
    captions: list[list[str]] = []
    ids: list[int | str] = []
    for item in _list(_read_json(file), "images", file):
        name = _field(item, "filename", str, file)
        if _field(item, "split", str, file) not in KARPATHY[split]:
            continue
        raw = [_field(sentence, "raw", str, file) for sentence in _list(item, "sentences", file)]
        if not raw:
            raise InputError(f"{file}: image {name} has no caption; remove it from the file")
        paths.append(root / str(item.get("filepath") or "") / name)
        captions.append([_caption(text, f"{file}: image {name}") for text in raw])
        number = parse_image_id(item.get("cocoid"))
        ids.append(name if number is None else number)
    return _make_dataset(paths, captions, ids, file)


def read_table(file: str | os.PathLike) -> CaptionDataset:
    """Read a CSV with columns named file and caption, one row per caption; paths are relative to its folder.

    Names of one file, such as x.png and ./x.png, or composed and decomposed characters, are one image.
    Images are in the order of their first row. Other columns are ignored. Raises InputError naming the line of a row
    with too few or too many columns, and as read_coco does.
    """
    file = Path(file)
    captions: dict[Path, list[str]] = {}
    names: dict[Path, str] = {}
    found: dict[str, Path] = {}
    existing = FileNames()
    for line, row in _rows(file):
        name = row["file"]
        if name is None or row["caption"] is None or None in row:
            count = "more" if None in row else "fewer"
            raise InputError(
                f"{file}: line {line} has {count} columns than the header; quote captions that have commas"
            )
        if not name.strip():
            raise InputError(f"{file}: line {line} names no file")
        name = os.path.normpath(name.strip())
        if name not in found:
            found[name] = existing.find(file.parent / name)
        path = found[name]
        names.setdefault(path, name)
        captions.setdefault(path, []).append(_caption(row["caption"], f"{file}: line {line}"))
    return _make_dataset(list(captions), list(captions.values()), list(names.values()), file)


def _rows(file: Path) -> Iterator[tuple[int, dict[Any, Any]]]:
    """Yield each row as a dict by COLUMNS, which the header has in any case, with the number of its last line.

    Raises InputError for another header.
    """
    try:
        with open(file, encoding="utf-8-sig", newline="") as text:
            reader = csv.DictReader(text)
            reader.fieldnames = [name.strip().lower() for name in reader.fieldnames or ()]
            missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
            if missing:
                raise InputError(f"{file}: its first line has no column {missing[0]!r}; begin with file,caption")
            for row in reader:
                yield reader.line_num, row
    except FileNotFoundError as error:
        raise InputError(f"{file}: no such file") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{file}: not a table of captions in UTF-8 ({error})") from error


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{file}: no such file") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: not JSON ({error}); download it again") from error


def _list(content: Any, name: str, file: Path) -> list[Any]:
    """Return a field of a JSON object. Raises InputError when it is missing or not a list."""
    value = content.get(name) if isinstance(content, dict) else None
    if not isinstance(value, list):
        raise InputError(f"{file}: has no list {name!r}; it is not a file of captions")
    return value


def _field(item: Any, name: str, kind: type, file: Path) -> Any:
    """Return a field of a JSON object. Raises InputError when it is missing or of another type."""
    value = item.get(name) if isinstance(item, dict) else None
    if not isinstance(value, kind):
        raise InputError(f"{file}: an entry has no {name!r} ({str(item)[:60]}); it is not a file of captions")
    return value


def _image_id(item: Any, name: str, file: Path) -> int | str:
    """Return an image's id in a JSON object. Raises InputError when it is missing or neither a number nor a text."""
    value = parse_image_id(item.get(name)) if isinstance(item, dict) else None
    if value is None:
        raise InputError(f"{file}: an entry has no {name!r} ({str(item)[:60]}); it is not a file of captions")
    return value


def _caption(text: str, source: str) -> str:
    if not text.strip():
        raise InputError(f"{source}: an empty caption; fill it in or remove it")
    return text.strip()


def _make_dataset(
    paths: Sequence[Path], captions: Sequence[list[str]], ids: Sequence[int | str], file: Path
) -> CaptionDataset:
    """Return the data set that a file describes. Raises InputError when it is empty or image files are missing."""
    if not paths:
        raise InputError(f"{file}: no captions of this split in it")
    paths = find_files(paths)
    missing = [path for path in paths if not path.is_file()]
    if missing:
        more = f", and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(f"{missing[0]}: listed in {file} but missing{more}")
    return CaptionDataset(tuple(paths), tuple(tuple(texts) for texts in captions), tuple(ids))


def _hold_out(dataset: CaptionDataset, fraction: float, seed: int) -> tuple[CaptionDataset, CaptionDataset]:
    """Divide a data set into (rest, holdout), each in the original order and with at least one image."""
    if len(dataset) < 2:
        raise InputError(f"{dataset.paths[0]}: the only image; training and validation need one each")
    order = np.random.default_rng(seed).permutation(len(dataset))
    count = min(max(1, round(fraction * len(dataset))), len(dataset) - 1)
    return dataset.take(np.sort(order[count:])), dataset.take(np.sort(order[:count]))
