"""as_dataset: every kind of images and labels that fit accepts, and one line for every other."""

from collections import UserDict

import numpy as np
import pytest
from PIL import Image

from vit_jax import InputError
from vit_jax.data import Dataset, Split
from vit_jax.data.inputs import as_dataset

LABELS = np.arange(8) % 2
IMAGES = np.random.default_rng(0).integers(0, 256, (8, 20, 24, 3)).astype(np.uint8)
SETS = np.eye(2, dtype=bool)[LABELS]


class Items(UserDict):
    """A random-access data set of (picture, label)."""


def make_items(pictures, labels):
    return Items(enumerate(zip(pictures, labels, strict=True)))


def make_split(labels, names=range(8)):
    return Split([f"image {i}" for i in names], labels, lambda index: Image.fromarray(IMAGES[index]))


def pixels(split):
    return [np.asarray(split.open(index)) for index in range(len(split))]


def test_images_are_an_array_or_a_sequence_of_pictures():
    objects = np.empty(8, object)
    objects[:] = list(IMAGES)
    pictures = [Image.fromarray(image) for image in IMAGES]
    for images in (IMAGES, list(IMAGES), tuple(pictures), objects):
        data = as_dataset((images, LABELS), (images[:2], LABELS[:2]))
        assert data.train.labels.tolist() == LABELS.tolist()
        np.testing.assert_array_equal(pixels(data.train), IMAGES)
        np.testing.assert_array_equal(pixels(data.val), IMAGES[:2])
    mixed = as_dataset(([IMAGES[0], pictures[1].resize((9, 5))], [0, 1]), (pictures, LABELS))
    assert [mixed.train.open(i).size for i in (0, 1)] == [(24, 20), (9, 5)]


def test_pictures_are_trained_upright_as_the_pipeline_shows_them():
    picture = Image.fromarray(IMAGES[0])
    picture.getexif()[0x0112] = 6  # shown turned by 90 degrees clockwise
    data = as_dataset(([picture, picture], [0, 1]), make_items([picture], [1]))
    for split in (data.train, data.val):
        np.testing.assert_array_equal(np.asarray(split.open(0)), np.rot90(IMAGES[0], -1))


@pytest.mark.parametrize("kind", [list, np.array, lambda texts: np.array(texts, object)])
def test_labels_that_are_texts_name_the_classes(kind):
    texts = ["dog", "cat", "ox", "cat"]
    data = as_dataset((IMAGES[:4], kind(texts)), (IMAGES[:2], kind(["ox", "dog"])))
    assert data.class_names == ("cat", "dog", "ox")
    assert (data.train.labels.tolist(), data.val.labels.tolist()) == ([1, 0, 2, 0], [2, 1])
    assert as_dataset(make_items(IMAGES[:4], texts), (IMAGES[:2], [2, 0])).val.labels.tolist() == [2, 0]
    with pytest.raises(InputError, match="val: class emu is not one of the classes to train"):
        as_dataset((IMAGES[:4], texts), (IMAGES[:2], ["ox", "emu"]))


def test_a_split_and_a_dataset_are_checked_like_arrays():
    good = make_split(LABELS.astype(np.int32))
    zeros = make_split(np.zeros(8, np.int32))
    data = Dataset("d", ("a", "b"), good, good, root="r")
    checked = as_dataset(data, None)
    assert (checked.name, checked.root, checked.class_names) == ("d", "r", ("a", "b"))
    for names, train, val, message in (
        (("a", "b"), make_split(np.full(8, 5, np.int32)), good, "train: label 5 of image 0 is not among 0 to 1"),
        (("a", "b"), good, make_split(np.zeros(0, np.int32), ()), "val: no images"),
        (("a", "b"), make_split(LABELS.astype(np.int32), range(3)), good, "train: 3 names and 8 labels"),
        (("a", "a"), good, good, "two classes are called a"),
        (("a",), zeros, zeros, r"only one class \(a\)"),
    ):
        with pytest.raises(InputError, match=message):
            as_dataset(Dataset("d", names, train, val), None)


WRONG = {
    "floats": ((IMAGES / 255.0, LABELS), r"images are float64.*\(images \* 255\).round\(\).astype\('uint8'\)"),
    "large floats": ((IMAGES / 1.0, LABELS), r"images.round\(\).astype\('uint8'\) if that fits"),
    "signed floats": ((IMAGES / 127.5 - 1, LABELS), "scale their range, -1 to 1, to 0 to 255"),
    "16 bits": ((IMAGES.astype(np.uint16) * 257, LABELS), "scale their range, 0 to 65535, to 0 to 255"),
    "not a number": ((IMAGES * np.nan, LABELS), "replace the values that are not finite"),
    "channels first": ((IMAGES.transpose(0, 3, 1, 2), LABELS), r"give images.transpose\(0, 2, 3, 1\)"),
    "one image": ((IMAGES[0, 0], LABELS), r"shape \(24, 3\); give \[N, h, w\]"),
    "no rows": ((IMAGES[:, :0], LABELS), r"shape \(8, 0, 24, 3\)"),
    "floats in a list": ((list(IMAGES / 255.0), LABELS), "train image 0: an image array is uint8"),
    "paths": ((["a.png"] * 8, LABELS), "train image 0: not an image: str"),
    "few labels": ((IMAGES, LABELS[:5]), "8 images and 5 labels"),
    "float labels": ((IMAGES, LABELS / 1.0), "labels are float64; give whole numbers"),
    "ragged labels": ((IMAGES, [[0], [0, 1]] * 4), "labels are lists of different lengths"),
    "missing labels": ((IMAGES, [0, None] * 4), "labels are object; give whole numbers"),
    "empty text": ((IMAGES, ["a", " "] * 4), "the label of image 1 is empty"),
    "one-hot": ((IMAGES, np.eye(2)[LABELS]), r"labels are float64 \(8, 2\); give .*booleans \[N, C\]"),
    "negative": ((IMAGES, LABELS - 1), "train: label -1 of image 0 is no class"),
    "above int32": ((IMAGES, LABELS + 2**32), "train: label 4294967296 of image 0 is no class"),
    "from 1": ((IMAGES, LABELS + 1), "no image has the label 0, and one has 2; number the classes 0, 1"),
    "record numbers": ((IMAGES, LABELS * 10**9), "no image has the label 1, and one has 1000000000"),
    "one class": ((IMAGES, LABELS * 0), "only one class"),
    "no sets": ((IMAGES, SETS & False), "give both alike"),
    "empty": ((IMAGES[:0], LABELS[:0]), "train: no images"),
    "no data": (3, "int is no data; give a Dataset"),
    "no folder": ("nowhere", "nowhere: no such folder"),
    "no pairs": ([1, 2, 3], "train image 0: an item is"),
    "no pictures": (make_items([IMAGES[0] / 255.0], [0]), "train image 0: an image array is uint8"),
    "mixed labels": (make_items(IMAGES[:2], ["cat", 1]), "labels have the dtypes U and i"),
    "by name": ({"images": IMAGES}, "train image 0: the data set has 1 items but none at 0"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_data_are_refused_in_one_line(name):
    data, message = WRONG[name]
    with pytest.raises(InputError, match=message) as error:
        as_dataset(data, (IMAGES, LABELS))
    assert "\n" not in str(error.value)


def test_wrong_validation_data_are_refused():
    train = IMAGES, LABELS
    for val, message in (
        ((IMAGES[:0], LABELS[:0]), "val: no images"),
        ((IMAGES, LABELS + 1), "val: label 2 of image 1 is not among 0 to 1"),
        ((IMAGES, ["a", "b"] * 4), "train: its labels are numbers and those of val are names"),
        (None, "val: None stands for"),
    ):
        with pytest.raises(InputError, match=message):
            as_dataset(train, val)
    assert as_dataset(train, (IMAGES, ["b", "a"] * 4), class_names=["b", "a"]).val.labels.tolist() == [0, 1] * 4


def test_sets_without_any_label_are_refused():
    for train, val, name in ((SETS & False, SETS, "train"), (SETS, SETS & False, "val")):
        with pytest.raises(InputError, match=f"{name}: no image has a label"):
            as_dataset((IMAGES, train), (IMAGES, val))


def test_class_names_are_different_texts_one_for_each_class():
    train = IMAGES, LABELS
    for names, message in (
        (["cat"], "train: label 1 of image 1 is not among 0 to 0"),
        ("ab", "one text, 'ab'; give a list"),
        (["a", "a"], "two classes are called a"),
        (["a", ""], "are not all texts"),
        ([], "class_names: none"),
    ):
        with pytest.raises(InputError, match=message):
            as_dataset(train, train, class_names=names)
    assert as_dataset(train, train, class_names=["a", "b", "c"]).class_names == ("a", "b", "c")
    data = Dataset("d", ("x", "y"), make_split(LABELS.astype(np.int32)), make_split(LABELS.astype(np.int32)))
    with pytest.raises(InputError, match="class_names: not those of the data"):
        as_dataset(data, None, class_names=["x", "z"])
