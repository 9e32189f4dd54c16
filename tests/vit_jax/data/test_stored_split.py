"""A stored split survives writing, restores the same sides, keeps them as data grows, and names every change."""

import gzip

import numpy as np
import pytest
from PIL import Image

from vit_jax import InputError
from vit_jax.data.dataset import Dataset, Split, hold_out
from vit_jax.data.digits import open_digits
from vit_jax.data.folder import open_folder
from vit_jax.data.split_changes import describe_changes
from vit_jax.data.stored_split import image_ids, keep_split, read_split, record_split, restore_split, write_split


def paint(path, side=8):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (side, side), (9, 9, 9)).save(path)


@pytest.fixture
def root(tmp_path):
    """Write three classes of ten images, without a validation split."""
    for kind in ("ant", "cat", "dog"):
        for i in range(10):
            paint(tmp_path / "data" / kind / f"{i}.png", side=8 + i)
    return tmp_path / "data"


def sides(data):
    """Return the images of each side, by name below the data set's root."""
    return image_ids(data.train, data.root), image_ids(data.val, data.root)


def changes(root, stored):
    return describe_changes(stored, record_split(open_folder(root, seed=3)))


def test_a_split_is_read_as_it_was_written(root, tmp_path):
    split = record_split(open_folder(root, seed=3))
    write_split(tmp_path / "split.json.gz", split)
    assert read_split(tmp_path / "split.json.gz") == split
    assert split.class_names == ("ant", "cat", "dog")
    assert (len(split.train.names), len(split.val.names)) == (24, 6)
    names, labels, sizes = split.images
    index = names.index("cat/7.png")
    assert (labels[index], sizes[index]) == (1, (root / "cat/7.png").stat().st_size)


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", gzip.compress(b"{}"), gzip.compress(b"[1]")],
    ids=["empty", "not compressed", "no fields", "a list"],  # compressed bytes hold the time: no name for a test
)
def test_a_damaged_file_is_named(content, tmp_path):
    (tmp_path / "split.json.gz").write_bytes(content)
    with pytest.raises(InputError, match=r"split.json.gz: damaged"):
        read_split(tmp_path / "split.json.gz")


def test_restoring_takes_the_stored_sides_and_not_those_of_the_seed(root):
    first, other = open_folder(root, seed=3), open_folder(root, seed=4)
    assert sides(first) != sides(other)
    restored = restore_split(other, record_split(first))
    assert sides(restored) == sides(first)
    np.testing.assert_array_equal(restored.val.labels, first.val.labels)
    assert restored.val.open(5).size == first.val.open(5).size  # the images differ in size


def test_images_that_were_skipped_stay_out(root):
    data = open_folder(root, seed=3)
    readable = data.train.take(range(2, len(data.train)))
    stored = record_split(data, train=readable)
    assert stored.skipped.names == sides(data)[0][:2]
    assert not describe_changes(stored, record_split(data))
    assert sides(restore_split(data, stored)) == (sides(data)[0][2:], sides(data)[1])


def test_images_keep_their_side_when_others_arrive_or_go(root):
    stored = record_split(open_folder(root, seed=3))
    for i in range(10, 16):
        paint(root / "cat" / f"{i}.png")
        paint(root / "bee" / f"{i}.png")
    (root / stored.train.names[0]).unlink()
    grown = open_folder(root, seed=3)
    assert set(sides(grown)[1]) & set(stored.train.names)  # drawn anew, training images validate
    data, known, new = keep_split(grown, stored)
    assert (known, new) == (29, 12)
    train, val = map(set, sides(data))
    assert set(stored.train.names[1:]) <= train
    assert set(stored.val.names) <= val
    assert len(train | val) == 41
    assert {name.split("/")[0] for name in val} == {"ant", "bee", "cat", "dog"}


def test_every_change_is_named(root):
    stored = record_split(open_folder(root, seed=3))
    assert changes(root, stored) == ""
    assert not describe_changes(stored, record_split(open_folder(root, seed=4)))  # the sides do not count
    paint(root / "dog" / "new.png")
    paint(root / "dog" / "newer.png")
    assert changes(root, stored) == "2 added (first: dog/new.png)"
    (root / "ant" / "3.png").unlink()
    paint(root / "ant" / "4.png", side=99)
    expected = "2 added (first: dog/new.png), 1 removed (first: ant/3.png), 1 replaced (first: ant/4.png)"
    assert changes(root, stored) == expected
    paint(root / "eel" / "1.png")
    paint(root / "eel" / "2.png")
    assert changes(root, stored).endswith("1 class new (eel)")


def test_a_renamed_class_is_one_change_and_not_twenty(root):
    stored = record_split(open_folder(root, seed=3))
    (root / "cat").rename(root / "zebra")
    assert changes(root, stored) == "class cat renamed to zebra"
    paint(root / "dog" / "10.png")
    assert changes(root, stored) == "1 added (first: dog/10.png), class cat renamed to zebra"
    paint(root / "zebra" / "10.png")
    expected = "12 added (first: dog/10.png), 10 removed (first: cat/0.png), 1 class gone (cat), 1 class new (zebra)"
    assert changes(root, stored) == expected


def records(labels, class_names):
    split = Split([f"record {i}" for i in range(len(labels))], np.array(labels, np.int32), lambda i: None)
    return record_split(Dataset("records", class_names, *hold_out(split, 0.5, 0)))


def test_records_without_files_are_compared_by_class_and_label():
    stored = records([0, 0, 1, 1], ("a", "b"))
    assert stored.train.sizes == [None, None]
    assert describe_changes(stored, records([0, 0, 1, 1], ("a", "b"))) == ""
    assert describe_changes(stored, records([1, 1, 0, 0], ("b", "a"))) == "classes in another order"
    assert describe_changes(stored, records([0, 1, 0, 1], ("a", "b"))) == "2 labelled otherwise (first: record 1)"
    assert describe_changes(stored, records([0, 0, 1, 1], ("a", "c"))) == "class b renamed to c"
    assert describe_changes(stored, records([0, 0, 1, 1, 1], ("a", "b"))) == "1 added (first: record 4)"


def test_the_digits_have_a_split_too():
    data = open_digits(seed=1)
    stored = record_split(data)
    assert not describe_changes(stored, record_split(open_digits(seed=2)))
    assert restore_split(open_digits(seed=2), stored).val.names == data.val.names
