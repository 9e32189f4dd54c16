"""Readers of captioned images: three layouts, their splits and order, and all their errors."""

import json

import pytest
from PIL import Image

from caption.data.captions import open_captions, read_coco, read_karpathy, read_table
from vit_jax import InputError
from vit_jax.data.decode import CorruptImageError


def pictures(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6, 4), (9, 99, 199)).save(root / name)


def coco(root, *, year="2017", split="train", **changes):
    content = {
        "images": [{"id": 12, "file_name": "b.jpg"}, {"id": 3, "file_name": "a.jpg"}, {"id": 40, "file_name": "c.jpg"}],
        "annotations": [
            {"image_id": 12, "id": 1, "caption": "A bee.\n"},
            {"image_id": 3, "id": 5, "caption": "An ant"},
            {"image_id": 12, "id": 0, "caption": "Some bee"},
        ],
        **changes,
    }
    pictures(root, f"{split}{year}/a.jpg", f"{split}{year}/b.jpg")
    (root / "annotations").mkdir(exist_ok=True)
    file = root / "annotations" / f"captions_{split}{year}.json"
    file.write_text(json.dumps(content))
    return file


def karpathy(root, **changes):
    def image(number, split, **more):
        return {"filename": f"{number}.jpg", "split": split, "sentences": [{"raw": f"cat {number} "}], **more}

    images = [
        image(1, "val", filepath="val2014", cocoid=7),
        image(2, "train", filepath="train2014", cocoid=5),
        image(3, "restval"),
        image(4, "test", sentences=[{"raw": "x"}, {"raw": "y"}]),
    ]
    images[0].update(changes)
    pictures(root, "val2014/1.jpg", "train2014/2.jpg", "3.jpg", "4.jpg")
    file = root / "dataset_small.json"
    file.write_text(json.dumps({"images": images}))
    return file


def table(root, text, name="captions.csv"):
    pictures(root, "a.jpg", "b/c d.png", "e.jpg")
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).write_text(text)
    return root / name


def test_coco(tmp_path):
    coco(tmp_path)
    train = open_captions(tmp_path, "train")
    assert train.ids == (3, 12)  # by number; 40 has no caption
    assert train.captions == (("An ant",), ("A bee.", "Some bee"))
    assert train.paths == (tmp_path / "train2017" / "a.jpg", tmp_path / "train2017" / "b.jpg")
    assert train.pairs() == [(0, "An ant"), (1, "A bee."), (1, "Some bee")]
    assert (len(train), train.open(1).size, train.take([1]).ids) == (2, (6, 4), (12,))
    coco(tmp_path, split="val", year="2014")
    assert open_captions(tmp_path, "val").paths[0] == tmp_path / "val2014" / "a.jpg"
    with pytest.raises(InputError, match=r"annotations: needs one captions_test\*.json; it has none"):
        read_coco(tmp_path, "test")
    coco(tmp_path, year="2014")
    with pytest.raises(InputError, match=r"it has captions_train2014.json, captions_train2017.json; keep one"):
        read_coco(tmp_path, "train")


@pytest.mark.parametrize("convert", [str, float], ids=["text", "float"])
def test_coco_with_ids_as_people_write_them(convert, tmp_path, capsys):
    content = json.loads(coco(tmp_path).read_text())
    images = [item | {"id": convert(item["id"])} for item in content["images"]]
    annotations = [item | {"image_id": convert(item["image_id"])} for item in content["annotations"]]
    coco(tmp_path, images=[*images, images[0]], annotations=[*annotations, annotations[0]])
    train = open_captions(tmp_path, "train")
    assert train.ids == (3, 12)
    assert train.captions == (("An ant",), ("A bee.", "Some bee"))  # the repeated entries count once
    assert "repeated annotations left out: 1" in capsys.readouterr().err


def test_coco_with_texts_as_ids(tmp_path):
    images = [{"id": "img_1", "file_name": "b.jpg"}, {"id": "img_0", "file_name": "a.jpg"}]
    annotations = [{"image_id": "img_1", "caption": "b"}, {"image_id": "img_0", "caption": "a"}]
    coco(tmp_path, images=images, annotations=annotations)
    train = open_captions(tmp_path, "train")
    assert (train.ids, train.captions) == (("img_0", "img_1"), (("a",), ("b",)))


def test_names_of_one_file_in_a_table_are_one_image(tmp_path):
    text = "file,caption\n./a.jpg,one\na.jpg,two\nb/../e.jpg,three\ncafe\u0301/1.jpg,four\ncaf\u00e9/1.jpg,five\n"
    file = table(tmp_path, text)
    pictures(tmp_path, "cafe\u0301/1.jpg")
    read = read_table(file)
    assert read.ids == ("a.jpg", "e.jpg", "cafe\u0301/1.jpg")
    assert read.captions == (("one", "two"), ("three",), ("four", "five"))
    assert all(path.is_file() for path in read.paths)


def test_composed_names_find_decomposed_files(tmp_path):
    coco(tmp_path, images=[{"id": 3, "file_name": "\u00e9.jpg"}], annotations=[{"image_id": 3, "caption": "x"}])
    pictures(tmp_path, "train2017/e\u0301.jpg")
    assert open_captions(tmp_path, "train").paths == (tmp_path / "train2017" / "e\u0301.jpg",)


def test_karpathy(tmp_path):
    file = karpathy(tmp_path)
    assert open_captions(file, "train").ids == (5, "3.jpg")
    assert open_captions(file, "train").paths == (tmp_path / "train2014" / "2.jpg", tmp_path / "3.jpg")
    assert open_captions(file, "val").captions == (("cat 1",),)
    assert open_captions(file, "test").captions == (("x", "y"),)
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(InputError, match=r"elsewhere/4.jpg: listed in .*dataset_small.json but missing$"):
        open_captions(file, "test", images=tmp_path / "elsewhere")


def test_tables(tmp_path):
    text = 'file,caption\na.jpg,"A cat, asleep."\nb/c d.png,Two dogs\na.jpg,cat\ne.jpg,"over\ntwo lines"\n'
    full = read_table(table(tmp_path, text))
    assert full.ids == ("a.jpg", "b/c d.png", "e.jpg")
    assert full.captions == (("A cat, asleep.", "cat"), ("Two dogs",), ("over\ntwo lines",))
    train, val = (open_captions(tmp_path, split, val_fraction=0.3, seed=1) for split in ("train", "val"))
    assert sorted(train.ids + val.ids) == sorted(full.ids)
    assert (len(train), val.ids) == (2, open_captions(tmp_path / "captions.csv", "test", seed=1).ids)
    marked = table(tmp_path / "m", "\ufeffcaption,who,file\ncat,me,a.jpg\n", "captions.csv")
    assert read_table(marked).captions == (("cat",),)
    header = table(tmp_path, "File , CAPTION\na.jpg,a cat\n")
    assert read_table(header).captions == (("a cat",),)
    for split in ("train", "val"):
        table(tmp_path / "s" / split, f"file,caption\na.jpg,{split}\n")
        assert open_captions(tmp_path / "s", split).captions == ((split,),)
    assert open_captions(tmp_path / "s", "test").captions == (("val",),)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": None}, "json: has no list 'images'"),
        ({"annotations": {}}, "json: has no list 'annotations'"),
        ({"images": [{"id": True}]}, "json: an entry has no 'id'"),
        ({"images": [{"id": "3"}]}, "json: an entry has no 'file_name'"),
        (
            {"images": [{"id": 3, "file_name": "a.jpg"}, {"id": 3, "file_name": "b.jpg"}]},
            "json: the images a.jpg and b.jpg have one id, 3",
        ),
        ({"annotations": [3]}, "json: an entry has no 'image_id'"),
        ({"annotations": [{"image_id": 3, "caption": " \n"}]}, "json: image 3: an empty caption"),
        ({"annotations": [{"image_id": 3, "caption": None}]}, "json: an entry has no 'caption'"),
        ({"annotations": [{"image_id": 99, "caption": "x"}]}, "json: captions image 99, which its images do not list"),
        ({"annotations": [{"image_id": 40, "caption": "x"}]}, r"train2017/c.jpg: listed in .*json but missing$"),
        ({"annotations": []}, "json: no captions of this split in it"),
    ],
)
def test_broken_coco(tmp_path, changes, message):
    coco(tmp_path, **changes)
    with pytest.raises(InputError, match=message) as caught:
        open_captions(tmp_path, "train")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sentences": []}, "json: image 1.jpg has no caption"),
        ({"sentences": [{"raw": " "}]}, "json: image 1.jpg: an empty caption"),
        ({"sentences": [{"tokens": []}]}, "json: an entry has no 'raw'"),
        ({"split": None}, "json: an entry has no 'split'"),
        ({"filename": "9.jpg"}, r"val2014/9.jpg: listed in"),
        ({"split": "test"}, "json: no captions of this split"),
    ],
)
def test_broken_karpathy(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        read_karpathy(karpathy(tmp_path, **changes), "val")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "its first line has no column 'file'; begin with file,caption"),
        ("a.jpg,cat\n", "its first line has no column 'file'"),
        ("file,text\na.jpg,cat\n", "its first line has no column 'caption'"),
        ("file,caption\n", "no captions"),
        ("file,caption\na.jpg\n", "line 2 has fewer columns"),
        ("file,caption\na.jpg,a cat, asleep\n", "line 2 has more columns than the header; quote"),
        ("file,caption\na.jpg,cat\na.jpg, \n", "line 3: an empty caption"),
        ("file,caption\n ,cat\n", "line 2 names no file"),
        (
            "file,caption\na.jpg,cat\nz.jpg,cat\ny.jpg,cat\n",
            r"z.jpg: listed in .*captions.csv but missing, and 1 more",
        ),
        ("file,caption\na.jpg,cat\n", "a.jpg: the only image"),
    ],
)
def test_broken_tables(tmp_path, text, message):
    table(tmp_path, text)
    with pytest.raises(InputError, match=message):
        open_captions(tmp_path, "train")


def test_what_is_not_a_caption_data_set(tmp_path):
    with pytest.raises(InputError, match="no split 'dev': one of train, val, test"):
        open_captions(tmp_path, "dev")
    with pytest.raises(InputError, match="gone: no such file or folder"):
        open_captions(tmp_path / "gone", "train")
    with pytest.raises(InputError, match=r"no captions in it \(looked for annotations/, captions.csv, train/"):
        open_captions(tmp_path, "train")
    (tmp_path / "a.json").write_text('{"images": [')
    with pytest.raises(InputError, match=r"a.json: not JSON \(.*\); download it again"):
        open_captions(tmp_path / "a.json", "train")
    (tmp_path / "b.csv").write_bytes(b"file,caption\n\xff,x\n")
    with pytest.raises(InputError, match=r"b.csv: not a table of captions in UTF-8"):
        open_captions(tmp_path / "b.csv", "train")
    for reader in (read_table, lambda path: read_karpathy(path, "train")):
        with pytest.raises(InputError, match="gone: no such file"):
            reader(tmp_path / "gone")


def test_a_corrupt_picture_is_named_when_opened(tmp_path):
    file = table(tmp_path, "file,caption\na.jpg,cat\n")
    (tmp_path / "a.jpg").write_bytes(b"nonsense")
    with pytest.raises(CorruptImageError, match=r"a.jpg: not a readable image"):
        read_table(file).open(0)
