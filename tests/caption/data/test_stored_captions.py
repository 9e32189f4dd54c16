"""The captions of a run are stored, and differences are counted and named."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from caption.data.captions import CaptionDataset
from caption.data.stored_captions import describe_changes, read_captions, record_captions, write_captions
from vit_jax import InputError


def dataset(root, captions):
    """The images of these names, with these captions."""
    for name in captions:
        if not (root / name).exists():
            Image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(root / name)
    paths = tuple(root / name for name in captions)
    return CaptionDataset(paths, tuple(map(tuple, captions.values())), tuple(captions))


TRAIN = {"a.png": ["one", "two"], "b.png": ["three"], "c.png": ["four"]}
VAL = {"d.png": ["five"]}


@pytest.mark.parametrize(
    ("train", "val", "expected"),
    [
        (TRAIN, VAL, ""),
        ({**TRAIN, "e.png": ["x"], "f.png": ["y"]}, VAL, "2 images added (first: e.png)"),
        ({"a.png": TRAIN["a.png"]}, VAL, "2 removed (first: b.png)"),
        ({**TRAIN, "b.png": ["other"]}, VAL, "1 captioned otherwise (first: b.png)"),
        ({**TRAIN, "a.png": ["two", "one"]}, VAL, "1 captioned otherwise (first: a.png)"),
        ({**TRAIN, "a.png": ["one\ntwo"]}, VAL, "1 captioned otherwise (first: a.png)"),
        (
            {"a.png": TRAIN["a.png"], "b.png": TRAIN["b.png"], "d.png": VAL["d.png"]},
            {"c.png": TRAIN["c.png"]},
            "2 on the other side of the split (first: c.png)",
        ),
        (dict(reversed(TRAIN.items())), VAL, "images in another order"),
    ],
)
def test_differences(train, val, expected, tmp_path):
    stored = record_captions(dataset(tmp_path, TRAIN), dataset(tmp_path, VAL))
    write_captions(tmp_path / "stored", stored)
    assert read_captions(tmp_path / "stored") == stored
    now = record_captions(dataset(tmp_path, train), dataset(tmp_path, val))
    assert describe_changes(read_captions(tmp_path / "stored"), now) == expected


def test_a_replaced_image(tmp_path):
    stored = record_captions(dataset(tmp_path, TRAIN), dataset(tmp_path, VAL))
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(tmp_path / "d.png")
    now = record_captions(dataset(tmp_path, TRAIN), dataset(tmp_path, VAL))
    assert describe_changes(stored, now) == "1 replaced (first: d.png)"


@pytest.mark.parametrize(
    "content",
    [b"", b"text", gzip.compress(b"{}"), gzip.compress(json.dumps({"format": "caption_split/1"}).encode())],
    ids=["empty", "text", "object", "fields"],
)
def test_a_damaged_file_is_named(content, tmp_path):
    path = Path(tmp_path / "captions.json.gz")
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"captions.json.gz: damaged .*; restore the file, or start a new run"):
        read_captions(path)


def test_a_flipped_byte_is_damage(tmp_path):
    path = tmp_path / "captions.json.gz"
    write_captions(path, record_captions(dataset(tmp_path, TRAIN), dataset(tmp_path, VAL)))
    content = bytearray(path.read_bytes())
    content[30] ^= 255
    path.write_bytes(bytes(content))
    with pytest.raises(InputError, match="damaged"):
        read_captions(path)
