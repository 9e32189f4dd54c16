"""Folders as people have them: links, housekeeping folders, odd suffixes, split names, one level too high."""

import os
import unicodedata

import numpy as np
import pytest
from PIL import Image

from caption.data.captions import open_captions
from experiments.common.plots import plot_confusion, plot_curves
from experiments.common.shards import subfolders
from experiments.report.curves import plot_runs
from vit_jax import InputError
from vit_jax.data import image_suffixes, open_picture
from vit_jax.data.class_names import class_of
from vit_jax.data.folder import image_files, open_folder, open_folder_split
from vit_jax.data.listing import list_images
from vit_jax.data.unicode_names import find_files
from vit_jax.plot import save_figure

NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


def fill(root, names):
    """Write a small picture, or an empty file for a suffix of another kind, under each name."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() in image_suffixes():
            Image.new("RGB", (3, 2), (200, 30, 20)).save(path)
        else:
            path.touch()
    return root


def below(root, files):
    return [os.path.relpath(file, root) for file in files]


def test_files_are_sorted_by_their_parts(tmp_path):
    root = fill(tmp_path, ["a/b.png", "a-b/c.png", "a/B/c.jpg", "a.png", "b/1.JPG", "b/x.JpEg"])
    files = image_files(root)
    assert files == sorted(path for path in root.rglob("*") if path.is_file())
    assert below(root, files) == ["a/B/c.jpg", "a/b.png", "a-b/c.png", "a.png", "b/1.JPG", "b/x.JpEg"]


@pytest.mark.parametrize(
    "folder", [".ipynb_checkpoints", ".Trash-1000", "@eaDir", "__MACOSX", "$RECYCLE.BIN", "#recycle", ".x"]
)
def test_hidden_and_housekeeping_folders_are_skipped_at_any_depth_with_one_line(folder, tmp_path, capsys):
    names = [f"{c}/{i}.png" for c in ("cat", "dog") for i in range(2)]
    root = fill(tmp_path, [*names, f"{folder}/1.png", f"cat/{folder}/2.png", f"dog/a/{folder}/b/3.png"])
    fill(root, ["dog/a/4.png", "cat/._0.png", "cat/.DS_Store", "dog/Thumbs.db"])
    data = open_folder(root)
    assert data.class_names == ("cat", "dog")
    assert sorted(below(root, [*data.train.names, *data.val.names])) == sorted([*names, "dog/a/4.png"])
    (line,) = capsys.readouterr().out.splitlines()
    assert line == f"{root}: skipped 3 hidden or housekeeping folders ({folder}) and 1 hidden image"


def test_a_hidden_root_is_not_skipped(tmp_path):
    root = fill(tmp_path / ".cache", ["cat/1.png"])
    assert below(root, image_files(root)) == ["cat/1.png"]


def test_other_files_are_counted_by_suffix(tmp_path, capsys):
    root = fill(tmp_path, ["cat/1.png", "cat/2.heif", "cat/x.txt", "y.TXT", "labels.csv", "cat/raw", "cat/a.npy"])
    if ".heif" in image_suffixes():
        pytest.skip("pillow-heif is installed")
    assert below(root, image_files(root)) == ["cat/1.png"]
    (line,) = capsys.readouterr().out.splitlines()
    kinds = "2 .txt, 1 without suffix, 1 .csv, 1 .heif, 1 .npy; to read .heic, install pillow-heif"
    assert line == f"{root}: skipped 6 other files: {kinds}"


def test_an_error_for_no_images_says_what_is_there(tmp_path):
    root = fill(tmp_path, ["a/x.txt", ".hidden/1.png"])
    with pytest.raises(InputError, match=r"no images in it .*; skipped 1 hidden .*; skipped 1 other file: 1 \.txt"):
        image_files(root)


@pytest.mark.parametrize(
    ("suffix", "format"),
    [(".jfif", "JPEG"), (".jpe", "JPEG"), (".mpo", "MPO"), (".avif", "AVIF"), (".jp2", "JPEG2000"), (".j2k", "JPEG2000"),
     (".apng", "PNG"), (".dib", "DIB"), (".pgm", "PPM"), (".tga", "TGA"), (".qoi", "QOI")],
)  # fmt: skip
def test_every_format_of_pillow_is_listed_and_opened(suffix, format, tmp_path):
    image = Image.new("L" if suffix == ".pgm" else "RGB", (16, 12), 90)
    image.save(tmp_path / f"a{suffix.upper()}", format)
    (file,) = image_files(tmp_path)
    assert open_picture(file).size == (16, 12)


def test_formats_that_pillow_only_identifies_are_no_images():
    assert not image_suffixes() & {".h5", ".hdf", ".mpg", ".mpeg", ".eps", ".ps", ".wmf", ".grib", ".pdf", ""}
    assert image_suffixes() >= {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}


def test_linked_class_folders_are_entered(tmp_path):
    fill(tmp_path / "store", ["dogs/1.png", "dogs/2.png"])
    root = fill(tmp_path / "data", ["cat/1.png", "cat/2.png"])
    (root / "dog").symlink_to(tmp_path / "store" / "dogs")
    (root / "cat" / "3.png").symlink_to(tmp_path / "store" / "dogs" / "1.png")
    assert open_folder(root).class_names == ("cat", "dog")
    assert below(root, image_files(root)) == ["cat/1.png", "cat/2.png", "cat/3.png", "dog/1.png", "dog/2.png"]


@pytest.mark.parametrize("target", [".", "..", "../..", "../dog"])
def test_links_in_a_cycle_are_refused_by_name(target, tmp_path):
    root = fill(tmp_path / "data", ["cat/1.png", "dog/1.png"])
    (root / "cat" / "loop").symlink_to(target)
    if target == "../dog":  # two links that lead to one another
        (root / "dog" / "back").symlink_to("../cat")
    with pytest.raises(InputError, match=r"(loop|back): a link to a folder that contains it; remove the link"):
        image_files(root)


def test_a_link_to_a_missing_file_is_refused_by_name(tmp_path):
    root = fill(tmp_path, ["cat/1.png"])
    (root / "cat" / "2.png").symlink_to("gone.png")
    with pytest.raises(InputError, match=r"2.png: a link to a missing file"):
        image_files(root)


def test_an_unreadable_folder_is_an_error(tmp_path, monkeypatch):
    root = fill(tmp_path, ["cat/1.png", "dog/1.png"])
    scandir = os.scandir

    def refuse(path):  # permissions do not bind root, who may run the tests
        if str(path).endswith("dog"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    for open_data in (image_files, open_folder):
        with pytest.raises(InputError, match=r"dog: cannot be read \(Permission denied\)"):
            open_data(root)


def test_an_unreadable_file_is_an_error_that_no_policy_skips(tmp_path, monkeypatch):
    from vit_jax.data import decode

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(decode.Image, "open", refuse)
    with pytest.raises(InputError, match=r"a.png: cannot be read \(Permission denied\)") as caught:
        open_picture(tmp_path / "a.png")
    assert not isinstance(caught.value, decode.CorruptImageError)


@pytest.mark.parametrize(
    ("train", "val"), [("Train", "Val"), ("training", "validation"), ("TRAIN", "valid"), ("train", "test")]
)
def test_split_names(train, val, tmp_path):
    root = fill(tmp_path, [f"{s}/{c}/{i}.png" for s in (train, val) for c in ("cat", "dog") for i in range(2)])
    data = open_folder(root)
    assert data.class_names == ("cat", "dog")
    assert below(root, data.train.names)[0] == f"{train}/cat/0.png"
    assert below(root, data.val.names)[0] == f"{val}/cat/0.png"
    assert len(open_folder_split(root, "val")[0]) == 4


def test_a_test_folder_next_to_val_is_reported_as_unused(tmp_path, capsys):
    root = fill(tmp_path, [f"{s}/{c}/1.png" for s in ("train", "val", "test") for c in ("cat", "train")])
    assert open_folder(root).class_names == ("cat", "train")  # a class may be named train inside of a split
    assert capsys.readouterr().out == f"{root}: train trains, val validates; not used: test\n"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["train/1.png", "bus/1.png", "car/1.png"], r"train is the name of a split, .* \(bus, car\); rename train if it"),
        (["test/1.png", "bus/1.png"], r"test is the name of a split"),
        (["train/a/1.png", "Training/a/1.png"], r"has Training and train, which mean the same; keep one"),
        (["val/a/1.png", "val/b/1.png"], r"has val but no train folder; to divide it, give .*/val$"),
        (["train/train/cat/1.png", "train/train/dog/1.png"], r"train: has splits in it \(train\), .*; give .*/train$"),
        (["train/train/a/1.png", "train/val/a/1.png"], r"train: has splits in it \(train, val\), .*; give .*/train$"),
        (["pets/train/a/1.png", "pets/val/a/1.png"], r"only one class \(pets\).* \(train, val\) .*, give .*/pets$"),
        (["images/cat/1.png", "images/dog/1.png"], r"only one class \(images\).* \(cat, dog\) .*, give .*/images$"),
        (["images/1.png", "images/2.png", "labels.csv"], r"only one class.*; if labels.csv has the classes, give .*csv$"),
        (["images/cat_1.png", "images/dog_1.png"], r"only one class.*; if the file names have the classes, give .*images$"),
        (["IMG_1.jpg", "IMG_2.jpg", "DSC_1.jpg", "DSC_2.jpg"], r"DSC_1.jpg: DSC is a camera's name, no class; use a sub"),
        (["cat/1.png", "cat/2.png"], r"only one class \(cat\); a classifier needs two or more$"),
    ],
)  # fmt: skip
def test_folders_that_mean_something_else_are_refused_with_a_hint(names, message, tmp_path):
    with pytest.raises(InputError, match=message):
        open_folder(fill(tmp_path / "data", names))


@pytest.mark.parametrize("name", ["IMG_1234", "IMG_20230101_123456", "_DSC_1", "DSCN_0001", "PXL_20230101_12", "img_3",
                                  "20230101_123456", "Screenshot_2023"])  # fmt: skip
def test_names_that_cameras_give_are_no_classes(name):
    with pytest.raises(InputError, match="no class"):
        class_of(f"{name}.jpg", "data")


@pytest.mark.parametrize(("name", "expected"), [("n01440764_10026", "n01440764"), ("samoyed_1", "samoyed"), ("3_17", "3"),
                                                ("Imgur_cat_1", "Imgur_cat"), ("window_2", "window")])  # fmt: skip
def test_names_with_a_class(name, expected):
    assert class_of(f"{name}.jpg", "data") == expected


def test_a_split_that_the_folder_lacks_is_refused(tmp_path):
    root = fill(tmp_path, ["train/a/1.png", "train/b/1.png"])
    with pytest.raises(InputError, match=r"has train but no folder of --split val; give .*/train"):
        open_folder_split(root, "val")


def test_an_empty_class_folder_is_reported(tmp_path, capsys):
    root = fill(tmp_path, [f"train/{c}/{i}.png" for c in ("cat", "dog") for i in range(2)] + ["train/cow/deep/x.txt"])
    assert open_folder(root).class_names == ("cat", "dog")
    out = capsys.readouterr().out
    assert f"{root}/train: no images in cow, so no class of that name\n" in out
    assert list_images(root).empty == ["train/cow/deep", "train/cow"]


def test_class_names_are_compared_in_nfc(tmp_path, capsys):
    root = fill(tmp_path / "a", [f"train/{NFD}/1.png", f"val/{NFC}/2.png", "train/dog/1.png"])
    data = open_folder(root)
    assert data.class_names == (NFC, "dog")
    assert (data.train.labels.tolist(), data.val.labels.tolist()) == ([0, 1], [0])
    assert [data.train.open(i).size for i in range(2)] == [(3, 2)] * 2  # files keep their own names
    assert not capsys.readouterr().out
    root = fill(tmp_path / "b", [f"{NFD}/1.png", f"{NFC}/2.png", "dog/1.png", "dog/2.png"])
    assert open_folder(root).class_names == (NFC, "dog")
    assert "2 folders named" in capsys.readouterr().out
    assert class_of(f"{NFD}_1.png", root) == NFC


def test_names_that_are_no_utf8(tmp_path, capsys):
    root = os.fsencode(tmp_path)
    for name in (b"caf\xe9/1.png", b"caf\xe9/2.png", b"dog/\xff.png", b"dog/2.png"):
        path = os.path.join(root, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        Image.new("RGB", (3, 2)).save(os.fsdecode(path), "PNG")
    data = open_folder(tmp_path)
    assert [os.fsencode(name) for name in data.class_names] == [b"caf\xe9", b"dog"]
    assert all(data.train.open(i).size == (3, 2) for i in range(len(data.train)))


def test_files_are_found_in_any_unicode_form(tmp_path):
    fill(tmp_path, [f"{NFD}/{NFD}.png", f"{NFC}.png", f"both/{NFD}.png", f"both/{NFC}.png"])
    wanted = [f"{NFC}/{NFC}.png", f"{NFD}.png", f"both/{NFC}.png", f"both/{NFD}.png", "gone/x.png", "gone.png"]
    found = find_files(tmp_path / name for name in wanted)
    expected = [f"{NFD}/{NFD}.png", f"{NFC}.png", f"both/{NFC}.png", f"both/{NFD}.png", "gone/x.png", "gone.png"]
    assert found == [tmp_path / name for name in expected]


def test_a_table_of_captions_names_files_in_any_unicode_form(tmp_path):
    fill(tmp_path, [f"{NFD}.png", "b.png"])
    (tmp_path / "captions.csv").write_text(f"file,caption\n{NFC}.png,one\nb.png,two\n", encoding="utf-8")
    train, val = (open_captions(tmp_path, split, val_fraction=0.5) for split in ("train", "val"))
    assert {path.name for path in (*train.paths, *val.paths)} == {f"{NFD}.png", "b.png"}
    assert {train.open(0).size, val.open(0).size} == {(3, 2)}


def test_split_folders_of_captions_have_any_usual_name(tmp_path):
    for folder in ("Training", "Validation"):
        fill(tmp_path / folder, ["a.png"])
        (tmp_path / folder / "captions.csv").write_text(f"file,caption\na.png,{folder}\n")
    assert [open_captions(tmp_path, split).captions[0][0] for split in ("train", "val")] == ["Training", "Validation"]


def test_hidden_and_housekeeping_entries_are_no_shards(tmp_path):
    root = fill(tmp_path, ["b/1.png", "a/1.png", ".ipynb_checkpoints/1.png", "@eaDir/1.png", ".DS_Store", "Thumbs.db"])
    assert subfolders(root) == ["a", "b"]


def test_class_names_that_are_no_utf8_have_figures(tmp_path):
    name = os.fsdecode(b"caf\xe9")
    plot_confusion(np.eye(2, dtype=int), [name, "dog"], tmp_path / "confusion.png", title=f"run {name}")
    records = [{"epoch": 1, "train_loss": 1.0, "val_accuracy": 0.5}]
    plot_curves(records, tmp_path / "curves.png", title=f"data {name}")
    save_figure(plot_runs({name: records}), tmp_path / "runs.png")
    assert all((tmp_path / f"{file}.png").stat().st_size > 1000 for file in ("confusion", "curves", "runs"))
