"""Tables of files and labels: every accepted form, what is held out, and what is refused by line."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from vit_jax import ImagePreprocess, InputError
from vit_jax.data.dataset import rarest_labels
from vit_jax.data.datasets import open_dataset
from vit_jax.data.loader import CachedImages, ordered_batches
from vit_jax.data.stored_split import image_ids, record_split, restore_split
from vit_jax.data.table import open_table
from vit_jax.data.table_rows import format_labels, read_rows


@pytest.fixture
def root(tmp_path):
    """Write eight images in photos/, of different sizes."""
    (tmp_path / "photos").mkdir()
    for i in range(8):
        Image.new("RGB", (8 + i, 8), (10 * i, 0, 0)).save(tmp_path / "photos" / f"{i}.png")
    return tmp_path


def write(root, text, name="labels.csv"):
    (root / name).write_text(text, encoding="utf-8")
    return root / name


def rows(labels):
    return "".join(f"photos/{i}.png,{label}\n" for i, label in enumerate(labels))


def test_a_csv_with_a_header(root):
    data = open_table(write(root, "filename,label\n" + rows(["dog", "cat"] * 4)), val_fraction=0.25, seed=0)
    assert data.class_names == ("cat", "dog")
    assert (len(data.train), np.bincount(data.val.labels).tolist()) == (6, [1, 1])
    for split in (data.train, data.val):
        for i, name in enumerate(image_ids(split, data.root)):
            number = int(name.removeprefix("photos/").removesuffix(".png"))
            assert data.class_names[split.labels[i]] == ("dog", "cat")[number % 2]
            assert split.open(i).size == (8 + number, 8)


def test_every_form_gives_the_same_data(root):
    labels, splits = ["café", "dog"] * 4, ["train"] * 6 + ["val"] * 2
    cells = [(f"photos/{i}.png", label, split) for i, (label, split) in enumerate(zip(labels, splits, strict=True))]
    objects = [dict(zip(("split", "path", "class"), (s, f, label), strict=True)) for f, label, s in cells]
    forms = {
        "a.csv": "\ufeffFile,Label,Split\r\n" + "".join(f"{f},{label},{s}\r\n" for f, label, s in cells),
        "a.tsv": "split\tfile_name\tlabel\n" + "".join(f"{s}\t./{f}\t{label}\n" for f, label, s in cells),
        "a.jsonl": "\n".join(map(json.dumps, objects)) + "\n\n",
    }
    for name, text in forms.items():
        data = open_dataset(str(write(root, text, name)))
        assert data.class_names == ("café", "dog"), name
        assert data.train.labels.tolist() == [0, 1] * 3
        assert data.val.labels.tolist() == [0, 1]
        assert image_ids(data.val, data.root) == ["photos/6.png", "photos/7.png"]


def test_numbers_are_names_of_classes(root):
    lines = [json.dumps({"image": f"photos/{i}.png", "label": 10 * (i % 2)}) for i in range(8)]
    assert open_table(write(root, "\n".join(lines), "a.jsonl")).class_names == ("0", "10")


def test_a_file_by_its_relative_and_its_absolute_path_is_listed_twice(root):
    path = write(root, "file,label\n" + rows("abababab") + f"{root / 'photos' / '3.png'},b\n")
    with pytest.raises(InputError, match=r"3.png is in lines 5 and 10; give one line for each image"):
        open_table(path)


def test_classes_that_differ_in_case_are_named(root, capsys):
    table = write(root, "file,label\n" + rows(["cat", "Cat", "dog", "dog", "cat", "Cat", "dog", "dog"]))
    assert open_table(table).class_names == ("Cat", "cat", "dog")
    assert (
        f"{table}: Cat and cat are different classes, which differ in upper and lower case only\n"
        in capsys.readouterr().out
    )


def test_unused_columns_and_rows_are_named(root, capsys):
    text = "id,file,label,split,note\n" + "".join(
        f"{i},photos/{i}.png,{'ab'[i % 2]},{('train', 'train', 'val', 'test')[i // 2]},x\n" for i in range(8)
    )
    data = open_table(write(root, text))
    assert (len(data.train), len(data.val)) == (4, 2)
    out = capsys.readouterr().out
    assert "labels.csv: columns not used: id, note" in out
    assert "labels.csv: 2 rows are not used, of the split test" in out


def test_sets_of_labels(root):
    sets = ["cat|dog", "dog", "", "cat|emu", "emu", "dog | cat", "cat", "dog"]
    data = open_table(write(root, "file,labels\n" + rows(sets)), val_fraction=0.25, seed=0)
    assert data.train.is_multi_label
    assert data.class_names == ("cat", "dog", "emu")
    assert data.train.labels.shape[1] == 3
    names = image_ids(data.train, data.root) + image_ids(data.val, data.root)
    hot = np.concatenate([data.train.labels, data.val.labels])[np.argsort(names)]
    assert hot.tolist() == [[name in text for name in data.class_names] for text in sets]
    lists = [json.dumps({"file": f"photos/{i}.png", "labels": [n for n in data.class_names if n in text]}) for i, text in enumerate(sets)]  # fmt: skip
    again = open_table(write(root, "\n".join(lists), "a.jsonl"), val_fraction=0.25, seed=0)
    np.testing.assert_array_equal(again.val.labels, data.val.labels)
    with open(root / "b.csv", "w", newline="") as file:
        quoted = [(f"photos/{i}.png", json.dumps(text.split("|") if text else [])) for i, text in enumerate(sets)]
        csv.writer(file).writerows([("file", "labels"), *quoted])
    third = open_table(root / "b.csv", val_fraction=0.25, seed=0)
    np.testing.assert_array_equal(third.train.labels, data.train.labels)
    single = open_table(write(root, "file,label\n" + rows("abababab"), "c.csv"), multi_label=True)
    assert single.train.labels.sum(axis=1).tolist() == [1] * len(single.train)


@pytest.mark.parametrize("labels", [(), ("cat",), ("cat", "dog"), ("a|b",), ("[x]", "y"), ("é", "[1, 2]|")])
def test_labels_are_written_as_they_are_read(labels, root):
    with open(root / "labels.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("file", "label"), ("photos/0.png", format_labels(labels))])
    assert read_rows(root / "labels.csv")[0].labels == labels


def test_a_stored_split_and_batches_hold_sets_of_labels(root):
    data = open_table(write(root, "file,labels\n" + rows(["a|b", "b", "a", "b", "a|b", "", "b", "a"])), seed=0)
    stored = record_split(data)
    assert all(isinstance(label, list) for label in stored.images.labels)
    np.testing.assert_array_equal(restore_split(data, stored).train.labels, data.train.labels)
    images = CachedImages(data.train, ImagePreprocess((4, 4)), budget=10**6)
    batches = list(ordered_batches(images, 4))
    assert [batch.labels.shape for batch in batches] == [(4, 2)] * len(batches)
    read = np.concatenate([batch.labels[batch.weights > 0] for batch in batches])
    np.testing.assert_array_equal(read, data.train.labels)


def test_an_image_counts_for_its_rarest_class():
    hot = np.array([[1, 0, 1], [1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 1, 0]], bool)
    assert rarest_labels(hot).tolist() == [2, 1, 0, -1, 1]


HEAD = "file,label\n"
WRONG = {
    "no file column in its header; name it file or filename \\(it has 'photo', 'label'\\)": "photo,label\nphotos/0.png,a\n",
    "no label column in its header": "file,kind\nphotos/0.png,a\n",
    "file and path could both be the file column": "file,path,label\nphotos/0.png,x,a\n",
    "two columns are named 'label'": "file,label,label\nphotos/0.png,a,b\n",
    "line 3: 3 values for 2 columns": HEAD + "photos/0.png,a\nphotos/1.png,b,c\n",
    "line 2: no file in column file": HEAD + ",a\n",
    "line 3: no label for photos/1.png; give it one": HEAD + "photos/0.png,a\nphotos/1.png,\n",
    r"2 of 4 files are missing in .*: photos/8.png \(line 2\), gone.png \(line 4\)$": HEAD
    + "photos/8.png,a\nphotos/0.png,a\ngone.png,b\nphotos/1.png,b\n",
    "photos/1.png is in lines 2 and 4; give one line": HEAD + "photos/1.png,a\nphotos/0.png,b\n./photos/1.png,b\n",
    "class b has only one image": HEAD + rows("aab"),
    "only one class": HEAD + rows("aa"),
    "no rows in it": HEAD,
    "class b is in the validation images but not in the training ones": "file,label,split\nphotos/0.png,a,train\n"
    "photos/1.png,c,train\nphotos/2.png,b,val\n",
    "no row has the split train; the column has dev": "file,label,split\nphotos/0.png,a,dev\nphotos/1.png,b,dev\n",
    "no row has the split val; the column has dev, train": "file,label,split\nphotos/0.png,a,train\nphotos/1.png,b,dev\n",
    "line 3: no split in column split": "file,label,split\nphotos/0.png,a,train\nphotos/1.png,b,\n",
}


@pytest.mark.parametrize("message", WRONG)
def test_what_is_wrong_is_named(message, root):
    with pytest.raises(InputError, match=message):
        open_table(write(root, WRONG[message]))


def test_wrong_json_is_named_by_line(root):
    with pytest.raises(InputError, match="line 2: not JSON"):
        open_table(write(root, '{"file": "photos/0.png", "label": "a"}\n{"file"\n', "a.jsonl"))
    with pytest.raises(InputError, match="line 1: column label: True is not a label"):
        open_table(write(root, '{"file": "photos/0.png", "label": true}\n', "a.jsonl"))
    (root / "b.csv").write_bytes("file,label\nphotos/0.png,café\n".encode("latin-1"))
    with pytest.raises(InputError, match="not UTF-8"):
        open_table(root / "b.csv")
    with pytest.raises(InputError, match="no such folder"):
        open_dataset(str(root / "gone.csv"))
