"""Hugging Face data sets: folders of parquet files that the tests write, a hub over loopback, and what is refused."""

import hashlib
import http.server
import io
import json
import os
import pickle
import subprocess
import sys
import threading
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from vit_jax import ImagePreprocess, InputError
from vit_jax.data.datasets import open_dataset
from vit_jax.data.decode import CorruptImageError
from vit_jax.data.hugging_face_columns import choose_columns
from vit_jax.data.hugging_face_names import HubName, absolute_name, parse_name
from vit_jax.data.loader import CachedImages, ordered_batches
from vit_jax.train.run_folder import absolute_if_path

datasets = pytest.importorskip("datasets")
COMMIT = "0123456789abcdef0123456789abcdef01234567"
ANIMALS = datasets.ClassLabel(names=["dog", "cat"])


def encode(array, suffix="png"):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, suffix)
    return buffer.getvalue()


def picture(value):
    return {"bytes": encode(np.full((8, 6, 3), value, np.uint8)), "path": f"{value}.png"}


def write(path, label, values, *, feature=None, image="image", **columns):
    """Write a parquet file of pictures, whose pixels are 10 times their row, with labels."""
    rows = {image: [picture(10 * i) for i in range(len(values))], label: values, **columns}
    table = datasets.Dataset.from_dict(rows)
    table = table.cast_column(image, datasets.Image())
    table = table if feature is None else table.cast_column(label, feature)
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_parquet(path)


@pytest.fixture
def open_here(tmp_path):
    """Return a function that opens a data set with a cache of its own."""

    def open_it(spec, **options):
        return open_dataset(str(spec), data_dir=str(tmp_path / "cache"), **options)

    return open_it


def test_splits_and_class_names_are_the_files_own(tmp_path, open_here, capsys):
    write(tmp_path / "set/data/train-00000-of-00001.parquet", "label", [0, 1, 0, 1], feature=ANIMALS)
    write(tmp_path / "set/data/validation-00000-of-00001.parquet", "label", [1, 0], feature=ANIMALS)
    write(tmp_path / "set/data/test-00000-of-00001.parquet", "label", [-1, -1], feature=ANIMALS)
    data = open_here(tmp_path / "set")
    printed = capsys.readouterr().out
    assert "image column image, label column label; train trains, validation validates\n" in printed
    assert "set: splits not used: test\n" in printed
    assert data.class_names == ("dog", "cat")  # the order of the column, which is not sorted
    assert (data.train.labels.tolist(), data.val.labels.tolist()) == ([0, 1, 0, 1], [1, 0])
    assert [np.asarray(data.train.open(i))[0, 0, 0] for i in (3, 0, 2)] == [30, 0, 20]
    assert data.val.names[1] == f"{tmp_path}/set/validation[1]"
    again = pickle.loads(pickle.dumps(data.train.take([2, 3])))
    assert np.asarray(again.open(1))[0, 0].tolist() == [30, 30, 30]
    images = CachedImages(data.train, ImagePreprocess((4, 4)), budget=0)
    assert next(ordered_batches(images, 4)).images[:, 0, 0, 0].tolist() == [0, 10, 20, 30]


def test_without_metadata_and_validation(tmp_path, open_here):
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "set").mkdir()
    labels = ["café", "dog"] * 5
    table = pa.table({"picture": pa.array([picture(i) for i in range(10)]), "Label": pa.array(labels)})
    pq.write_table(table, tmp_path / "set/rows.parquet")
    data = open_here(tmp_path / "set", val_fraction=0.2, seed=3)
    assert data.class_names == ("café", "dog")
    assert (len(data.train), np.bincount(data.val.labels).tolist()) == (8, [1, 1])
    for split in (data.train, data.val):
        for i, name in enumerate(split.names):
            row = int(name.partition("[")[2].rstrip("]"))
            assert np.asarray(split.open(i))[0, 0, 0] == row
            assert split.labels[i] == row % 2


@pytest.mark.parametrize("feature", [datasets.List(ANIMALS), None])
def test_lists_are_sets_of_labels(tmp_path, open_here, feature):
    write(tmp_path / "set/train.parquet", "labels", [[0, 1], [1], [], [0]], feature=feature)
    write(tmp_path / "set/val.parquet", "labels", [[1], [0, 1]], feature=feature)
    data = open_here(tmp_path / "set")
    assert data.class_names == (("0", "1") if feature is None else ("dog", "cat"))
    assert data.train.labels.tolist() == [[True, True], [False, True], [False, False], [True, False]]
    assert data.val.labels.tolist() == [[False, True], [True, True]]


def test_minus_one_is_a_class_of_plain_numbers(tmp_path, open_here):
    write(tmp_path / "set/train.parquet", "label", [-1, 1, -1, 1])
    data = open_here(tmp_path / "set")
    assert data.class_names == ("-1", "1")
    assert len(data.train) + len(data.val) == 4


def test_single_labels_as_sets(tmp_path, open_here):
    write(tmp_path / "set/train.parquet", "label", [0, 1, -1, 1], feature=ANIMALS)
    write(tmp_path / "set/val.parquet", "label", [1, 0], feature=ANIMALS)
    with pytest.raises(InputError, match=r"train\[2\]: has no label; give --multi-label"):
        open_here(tmp_path / "set")
    assert open_here(tmp_path / "set", multi_label=True).train.labels.sum(axis=1).tolist() == [1, 1, 0, 1]


def test_a_missing_name_in_a_list_is_no_class(tmp_path, open_here):
    write(tmp_path / "train.parquet", "label", [["a"], ["b", None], ["a", "b"], ["b"]])
    with pytest.raises(InputError, match=r"train\[1\]: \['b', None\] in label is no label of it"):
        open_here(tmp_path)


def test_pictures_are_decoded_as_everywhere(tmp_path, open_here):
    """Of 12 bits in 16, on a transparent background, and broken."""
    deep = encode((np.arange(64).reshape(8, 8) * 65).astype(np.uint16))
    clear = encode(np.zeros((8, 8, 4), np.uint8))
    rows = [{"bytes": b, "path": None} for b in (deep, clear, b"no picture")] + [None]
    table = datasets.Dataset.from_dict({"image": rows, "label": [0, 1, 0, 1]})
    (tmp_path / "set").mkdir()
    for split in ("train", "val"):
        table.cast_column("image", datasets.Image()).to_parquet(tmp_path / f"set/{split}.parquet")
    train = open_here(tmp_path / "set").train
    np.testing.assert_array_equal(np.asarray(train.open(0)), np.arange(64).reshape(8, 8) * 65 >> 4)
    images = CachedImages(train, ImagePreprocess((4, 4)), budget=0)
    assert images[1][0].tolist() == np.full((4, 4, 3), 255).tolist()  # white behind it
    with pytest.raises(CorruptImageError, match=r"set/train\[2\]: not a readable image"):
        train.open(2)
    with pytest.raises(InputError, match=r"set/train\[3\]: has no image in the column image"):
        train.open(3)


CATS = datasets.ClassLabel(names=["cat", "dog"])
MORE = datasets.ClassLabel(names=["dog", "cat", "cow"])


@pytest.mark.parametrize(
    ("train", "other", "problem"),
    [
        (ANIMALS, CATS, "label 0 is 'cat' in .*, and 'dog' in the first file"),
        (ANIMALS, datasets.ClassLabel(names=["dog", "cow"]), "label 1 is 'cow' in .*, and 'cat' in the first file"),
        (ANIMALS, MORE, "label 2 is 'cow' in .*, and no class in the first file"),
        (None, ANIMALS, "label 0 is 'dog' in .*, and a text in the first file"),
    ],
)
@pytest.mark.parametrize("file", ["val", "train-00001-of-00002"])
def test_files_that_number_the_classes_in_different_ways_are_refused(tmp_path, open_here, train, other, problem, file):
    """Of two splits, and of one split: `datasets` would read the labels of all by the names of the first one."""
    write(tmp_path / "set/train-00000-of-00002.parquet", "label", [0, 1] if train else ["dog", "cat"], feature=train)
    write(tmp_path / f"set/{file}.parquet", "label", [0, 1], feature=other)
    with pytest.raises(InputError, match=f"set: {problem}, whose names are used for all; write the files with one"):
        open_here(tmp_path / "set")


def test_files_may_state_the_first_names_or_none(tmp_path, open_here):
    write(tmp_path / "set/train.parquet", "label", [0, 1, 2], feature=MORE)
    write(tmp_path / "set/val.parquet", "label", [1, 0], feature=ANIMALS)
    data = open_here(tmp_path / "set")
    assert (data.class_names, data.val.labels.tolist()) == (("dog", "cat", "cow"), [1, 0])
    write(tmp_path / "bare/train.parquet", "label", [0, 1, 2], feature=MORE)
    write(tmp_path / "bare/val.parquet", "label", [2, 0])
    assert open_here(tmp_path / "bare").val.labels.tolist() == [2, 0]
    write(tmp_path / "sets/train.parquet", "labels", [[0, 1], [1]], feature=datasets.List(ANIMALS))
    write(tmp_path / "sets/val.parquet", "labels", [[1], [0]], feature=datasets.List(CATS))
    with pytest.raises(InputError, match=r"labels 0 is 'cat' in .*val.parquet, and 'dog' in the first file"):
        open_here(tmp_path / "sets")


def test_columns_are_chosen_or_asked_for(tmp_path, open_here):
    coarse = datasets.Dataset.from_dict({"c": [0, 0, 1, 1]}).cast_column("c", ANIMALS)["c"][:]
    write(tmp_path / "set/train.parquet", "fine_label", [0, 1, 2, 3], image="img", coarse_label=coarse)
    with pytest.raises(InputError, match=r"no label column in it; it has .*fine_label \(int64\), coarse_label"):
        open_here(tmp_path / "set")
    spec = f"hf:{tmp_path}/set,label=coarse_label"
    assert open_here(spec).class_names == ("0", "1")
    with pytest.raises(InputError, match="label=kind is no label column; it has img"):
        open_here(f"hf:{tmp_path}/set,label=kind")
    with pytest.raises(InputError, match="image=fine_label is no image column"):
        open_here(f"{spec},image=fine_label")
    names = {"a": datasets.Image(), "b": datasets.Image(), "label": ANIMALS}
    with pytest.raises(InputError, match="x: a, b may all be the image; add ,image=a or ,image=b to hf:NAME"):
        choose_columns("x", names)
    both = {"image": datasets.Image(), "fine": ANIMALS, "coarse": ANIMALS, "id": datasets.Value("int64")}
    with pytest.raises(InputError, match="fine, coarse may all be the label"):
        choose_columns("x", both)
    assert choose_columns("x", both, label="id").label == "id"


def test_what_cannot_be_read_is_one_line(tmp_path, open_here, monkeypatch):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/train.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match="broken: cannot be loaded: "):
        open_here(tmp_path / "broken")
    write(tmp_path / "test_only/test.parquet", "label", [0, 1], feature=ANIMALS)
    with pytest.raises(InputError, match="no split train; it has test"):
        open_here(tmp_path / "test_only")
    write(tmp_path / "both/train.parquet", "label", [0, 1], feature=ANIMALS)
    (tmp_path / "both/cat").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "both/cat/1.png")
    with pytest.raises(InputError, match=r"both: has images \(cat/1.png\) and parquet files"):
        open_here(tmp_path / "both")
    write(tmp_path / "wrong/train.parquet", "label", [[0], [1.5]])
    with pytest.raises(InputError, match="no label column in it"):
        open_here(tmp_path / "wrong")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r"hf:beans: needs the package datasets: pip install 'vit-jax\[datasets\]'"):
        open_here("hf:beans")


def test_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "beans").mkdir()
    assert parse_name("hf:me/tiny:small,label=fine") == HubName("me/tiny", "small", None, "fine")
    assert parse_name("hf:./beans,image=a,label=b") == HubName("./beans", None, "a", "b")
    assert (
        absolute_name("hf:./beans,label=b") == absolute_if_path("hf:./beans,label=b") == f"hf:{tmp_path}/beans,label=b"
    )
    assert absolute_if_path("hf:me/tiny") == "hf:me/tiny"
    wrong = {
        "hf:beans": "beans is a folder here too; give hf:./beans for it",
        "hf:./gone": "no such folder",
        "hf:a/b/c": "not the name of a data set",
        "hf:": "not the name of a data set",
        "hf:a,split=b": "'split=b' names no column",
        "hf:a,label=": "'label=' names no column",
    }
    for spec, message in wrong.items():
        with pytest.raises(InputError, match=message):
            parse_name(spec)


class Hub(http.server.BaseHTTPRequestHandler):
    """A server with the part of the hub's API that loading a data set uses."""

    files: ClassVar[dict[str, bytes]] = {}

    def do_GET(self):
        path, entries = self.path.partition("?")[0], []
        for name, content in self.files.items():
            entries.append({"type": "file", "path": name, "size": len(content), "oid": etag_of(content)})
            if path == f"/datasets/me/tiny/resolve/{COMMIT}/{name}":
                self.answer(content, ETag=f'"{etag_of(content)}"')
                return
        info = {"id": "me/tiny", "sha": COMMIT, "private": False, "siblings": [{"rfilename": n} for n in self.files]}
        if path in ("/api/datasets/me/tiny", f"/api/datasets/me/tiny/revision/{COMMIT}"):
            self.answer(json.dumps(info).encode())
        elif path == f"/api/datasets/me/tiny/tree/{COMMIT}":
            self.answer(json.dumps(entries).encode())
        else:
            self.answer(b"", status=404, **{"X-Error-Code": "EntryNotFound"})

    do_HEAD = do_GET

    def do_POST(self):
        """Answer paths-info, which asks for files by name."""
        self.rfile.read(int(self.headers["Content-Length"]))
        entries = [{"type": "file", "path": n, "size": len(c), "oid": etag_of(c)} for n, c in self.files.items()]
        self.answer(json.dumps(entries).encode())

    def answer(self, content, *, status=200, **headers):
        self.send_response(status)
        for name, value in {"X-Repo-Commit": COMMIT, "Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *arguments):
        pass


def etag_of(content):
    return hashlib.sha1(content).hexdigest()


OPEN = """
import sys
from vit_jax.data.hugging_face import open_hugging_face
from vit_jax.errors import InputError
for spec in sys.argv[1:]:
    try:
        data = open_hugging_face(spec)
        print(data.class_names, data.train.labels.tolist(), len(data.val))
    except InputError as error:
        print(error)
"""


def test_a_data_set_of_the_hub(tmp_path):
    """Once from a server, then without a network from the cache; another name then fails in one line."""
    for split, labels in (("train", [0, 1, 1]), ("validation", [0, 1])):
        write(tmp_path / f"{split}.parquet", "label", labels, feature=ANIMALS)
        Hub.files[f"{split}.parquet"] = (tmp_path / f"{split}.parquet").read_bytes()
    command = [sys.executable, "-c", OPEN, "hf:me/tiny", "hf:me/other"]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        environment = os.environ | {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "home")}
        options = dict(capture_output=True, text=True, check=True)
        online = subprocess.run(command, env=environment, **options).stdout.splitlines()
        server.shutdown()
    offline = subprocess.run(command, env=environment | {"HF_HUB_OFFLINE": "1"}, **options).stdout.splitlines()
    assert len(online) == len(offline) == 3  # the columns, the data, and the error
    assert online[1] == offline[1] == "('dog', 'cat') [0, 1, 1] 2"
    assert online[2].startswith("hf:me/other: cannot be loaded: ")
    assert offline[2].startswith("hf:me/other: cannot be loaded: ")
