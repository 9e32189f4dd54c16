"""Data sets: folders, unusual image files, the pets' archives over loopback, tensorflow-datasets without TensorFlow."""

import io
import tarfile
import warnings

import numpy as np
import pytest
from PIL import Image

from tests.server import Server
from vit_jax import ImagePreprocess, InputError
from vit_jax.data.datasets import open_dataset
from vit_jax.data.decode import CorruptImageError, open_rgb
from vit_jax.data.digits import open_digits
from vit_jax.data.folder import open_folder, open_folder_split
from vit_jax.data.loader import CachedImages, ordered_batches, training_batches
from vit_jax.data.pets import open_pets, unpack

RED, BLUE = (200, 30, 20), (10, 60, 220)


def picture(path, colour=RED, size=(12, 10), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, **options)
    return path


def folder_of(root, names):
    for name in names:
        picture(root / name)
    return root


def test_classes_from_subfolders_and_from_names(tmp_path):
    nested = folder_of(
        tmp_path / "a", [f"{s}/{c}/{i}.jpg" for s in ("train", "val") for c in ("cat", "dog") for i in (1, 2)]
    )
    data = open_folder(nested)
    assert data.class_names == ("cat", "dog")
    assert data.train.labels.tolist() == data.val.labels.tolist() == [0, 0, 1, 1]
    flat = folder_of(tmp_path / "b", ["train/great_pyrenees_1.jpg", "train/pug_2.png", "val/pug_9.jpg"])
    data = open_folder(flat)
    assert data.class_names == ("great_pyrenees", "pug")
    assert (len(data.train), data.val.labels.tolist()) == (2, [1])
    split, names = open_folder_split(flat, "val")
    assert (len(split), names) == (1, ("pug",))


def test_one_folder_is_split_within_every_class(tmp_path):
    root = folder_of(tmp_path / "d", [f"{c}_{i}.jpg" for c in ("a", "b") for i in range(10)])
    data = open_folder(root, val_fraction=0.3, seed=1)
    assert np.bincount(data.val.labels).tolist() == [3, 3]
    assert not set(data.val.names) & set(data.train.names)
    assert data.val.names == open_folder(root, val_fraction=0.3, seed=1).val.names
    assert data.val.names != open_folder(root, val_fraction=0.3, seed=2).val.names


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "no such folder"),
        (["train/a_1.jpg", "train/a_2.jpg", "val/a_3.jpg"], "only one class"),
        (["train/a_1.jpg", "train/b_2.jpg", "val/c_3.jpg"], "class c is in the validation images but not"),
        (["cat.jpg", "dog.jpg"], "cat.jpg: no class; use a subfolder"),
        (["cat/1.jpg", "dog_2.jpg"], "dog_2.jpg: not in a class subfolder"),
        (["a_1.jpg", "a_2.jpg", "b_1.jpg"], "class b has only one image"),
    ],
)
def test_unsuitable_folders_are_refused(names, message, tmp_path):
    folder_of(tmp_path / "d", names)
    with pytest.raises(InputError, match=message):
        open_dataset(str(tmp_path / "d"))


def test_an_empty_folder_and_a_file_are_refused(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "notes.txt").write_text("x")
    with pytest.raises(InputError, match="no images in it"):
        open_dataset(str(tmp_path / "d"))
    with pytest.raises(InputError, match="not a folder"):
        open_dataset(str(tmp_path / "d" / "notes.txt"))


def encode(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def test_every_mode_is_converted_to_rgb():
    red = Image.new("RGB", (8, 6), RED)
    rgba = red.copy()
    rgba.putalpha(255)
    pictures = {
        "palette": encode(red.quantize(8), "PNG"),
        "palette with transparency": encode(red.quantize(8), "PNG", transparency=bytes([255, 255])),
        "alpha": encode(rgba, "PNG"),
        "cmyk": encode(red.convert("CMYK"), "JPEG", quality=95),
        "gif": encode(red, "GIF"),
    }
    for name, data in pictures.items():
        image = open_rgb(data)
        assert (image.mode, image.size) == ("RGB", (8, 6)), name
        assert np.abs(np.asarray(image, int) - RED).max() < 12, name
    assert open_rgb(encode(Image.new("L", (4, 4), 77), "PNG")).getpixel((0, 0)) == (77, 77, 77)
    assert open_rgb(encode(Image.new("1", (4, 4), 1), "PNG")).getpixel((0, 0)) == (255, 255, 255)
    deep = Image.fromarray(np.full((4, 4), 40_000, np.uint16))
    assert open_rgb(encode(deep, "PNG")).getpixel((0, 0)) == (156, 156, 156)


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_several_pictures_the_first_is_read(format):
    first, *rest = (Image.new("RGB", (6, 4), colour) for colour in ("red", "blue", "lime"))
    content = encode(first, format, save_all=True, append_images=rest)
    assert Image.open(io.BytesIO(content)).n_frames == 3
    image = open_rgb(content)
    assert np.abs(np.array(image.getpixel((0, 0))) - [255, 0, 0]).max() <= 8  # WebP loses some


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation):
    upright = Image.new("RGB", (16, 24), BLUE)
    upright.paste(RED, (0, 0, 16, 8))  # red on top
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transposition that each EXIF orientation reverts
    stored = upright if orientation == 1 else upright.transpose(Image.Transpose(undo[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = open_rgb(encode(stored, "PNG", exif=exif))
    assert image.size == (16, 24)
    np.testing.assert_array_equal(np.asarray(image), np.asarray(upright))


def test_corrupt_pictures_are_named(tmp_path):
    complete = picture(tmp_path / "a.jpg", size=(64, 64)).read_bytes()
    for name, content in {"cut.jpg": complete[:-300], "text.png": b"hello", "empty.jpg": b""}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CorruptImageError, match=f"{name}: not a readable image"):
            open_rgb(tmp_path / name)
    with pytest.raises(InputError, match=r"gone.jpg: no such file"):
        open_rgb(tmp_path / "gone.jpg")


def test_an_image_above_the_pixel_limit_is_named_and_can_be_allowed(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    path = picture(tmp_path / "large.png", size=(20, 10))
    with pytest.raises(CorruptImageError, match=r"large.png: has more than 100 pixels, .*, set VIT_JAX_MAX_PIXELS to"):
        open_rgb(path)
    monkeypatch.setenv("VIT_JAX_MAX_PIXELS", "200")
    assert open_rgb(path).size == (20, 10)
    with pytest.raises(CorruptImageError, match="has more than 200 pixels"):
        open_rgb(picture(tmp_path / "larger.png", size=(21, 10)))
    monkeypatch.setenv("VIT_JAX_MAX_PIXELS", "many")
    with pytest.raises(InputError, match="VIT_JAX_MAX_PIXELS=many: not a number of pixels"):
        open_rgb(path)


def pictures_of(tmp_path, count=7, budget=10**6):
    for i in range(count):
        picture(tmp_path / "p" / f"{'ab'[i % 2]}_{i}.png", colour=(i, 2 * i, 3 * i))
    split, _ = open_folder_split(tmp_path / "p", "val")
    return CachedImages(split, ImagePreprocess((4, 4)), budget=budget)


def test_batches_hold_every_image_once_in_an_order_that_the_seed_decides(tmp_path):
    pictures = pictures_of(tmp_path)
    expected = sorted((i, int(pictures.split.labels[i])) for i in range(7))

    def seen(batches):
        rows = [(b.images[r, 0, 0, 0], b.labels[r]) for b in batches for r in range(len(b.labels)) if b.weights[r]]
        order = {pictures[i][0][0, 0, 0]: i for i in range(7)}
        return [(order[value], int(label)) for value, label in rows]

    assert seen(ordered_batches(pictures, 3)) == expected
    first = list(training_batches(pictures, 3, seed=0, epoch=0))
    assert [b.images.shape for b in first] == [(3, 4, 4, 3)] * 3
    assert first[-1].weights.tolist() == [1, 0, 0]
    assert sorted(seen(first)) == expected
    assert seen(first) == seen(training_batches(pictures, 3, seed=0, epoch=0))
    assert seen(first) != seen(training_batches(pictures, 3, seed=0, epoch=1))
    assert seen(first) != seen(training_batches(pictures, 3, seed=1, epoch=0))
    assert seen(first)[3:] == seen(training_batches(pictures, 3, seed=0, epoch=0, start=1))


def test_the_cache_stays_within_its_budget(tmp_path):
    pictures = pictures_of(tmp_path, budget=3 * 48 + 10)
    for _ in range(2):
        for i in range(7):
            pictures[i]
    assert len(pictures.cache) == 3
    assert pictures.cache.free_bytes == 10


def test_corrupt_pictures_are_named_and_left_out(tmp_path, capsys):
    pictures = pictures_of(tmp_path)
    (tmp_path / "p" / "a_2.png").write_bytes(b"nonsense")
    with pytest.raises(CorruptImageError, match=r"a_2.png"):
        list(ordered_batches(pictures, 3))
    readable = pictures.drop_corrupt()
    assert len(readable) == 6
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("skipped: ")
    assert "a_2.png: not a readable image" in line
    assert sum(b.weights.sum() for b in ordered_batches(readable, 4)) == 6
    for i in (1, 3, 5):
        (tmp_path / "p" / f"b_{i}.png").write_bytes(b"nonsense")
    uncached = CachedImages(pictures.split, pictures.preprocess, budget=0)
    with pytest.raises(InputError, match="every image of a class is unreadable"):
        uncached.drop_corrupt()


def test_digits():
    data = open_digits()
    assert (len(data.train) + len(data.val), data.class_names) == (1797, tuple("0123456789"))
    assert data.train.open(0).size == (8, 8)
    assert np.bincount(data.val.labels).min() >= 34


def archive(files: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


def pets_server(tmp_path):
    jpeg = picture(tmp_path / "x.jpg").read_bytes()
    names = {"trainval.txt": ["Abyssinian_1", "pug_1", "pug_2"], "test.txt": ["Abyssinian_7", "pug_8"]}
    images = {f"images/{name}.jpg": jpeg for group in names.values() for name in group}
    lists = {f"annotations/{k}": "".join(f"{n} 1 1 1\n" for n in v).encode() for k, v in names.items()}
    return Server({"/images.tar.gz": archive(images), "/annotations.tar.gz": archive(lists)})


def test_pets_are_downloaded_unpacked_and_split(tmp_path, capsys):
    server = pets_server(tmp_path)
    data = open_pets(tmp_path / "pets", address=server.address, md5={"images": None, "annotations": None})
    assert data.class_names == ("Abyssinian", "pug")
    assert (data.train.labels.tolist(), data.val.labels.tolist()) == ([0, 1, 1], [0, 1])
    assert data.train.open(0).size == (12, 10)
    server.files.clear()  # a second time, nothing is downloaded
    assert len(open_pets(tmp_path / "pets", address=server.address, md5={"images": None}).val) == 2
    (tmp_path / "pets" / "images" / "images" / "pug_8.jpg").unlink()
    with pytest.raises(InputError, match=r"pug_8.jpg: listed but missing"):
        open_pets(tmp_path / "pets", address=server.address, md5={})
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("name", ["../escaped.txt", "/tmp/escaped-by-tar.txt", "a/../../escaped.txt"])
def test_archives_cannot_write_outside(name, tmp_path):
    path = tmp_path / "in" / "a.tar.gz"
    path.parent.mkdir()
    path.write_bytes(archive({"good.txt": b"1", name: b"2"}))
    with pytest.raises(InputError, match="leads outside the folder"):
        unpack(path, tmp_path / "in" / "a")
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a.tar.gz", "in"]


def test_links_in_archives_are_not_followed(tmp_path):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
        tar.addfile(link)
        inside = tarfile.TarInfo("link/x.txt")
        inside.size = 1
        tar.addfile(inside, io.BytesIO(b"x"))
    (tmp_path / "a.tar.gz").write_bytes(file.getvalue())
    unpack(tmp_path / "a.tar.gz", tmp_path / "a")
    assert not (tmp_path / "x.txt").exists()
    assert (tmp_path / "a" / "link" / "x.txt").read_text() == "x"


@pytest.mark.parametrize(
    "damage", [lambda b: b[: len(b) // 2], lambda b: b"\x00" * 50, lambda b: b[:40] + b"!!!!" + b[44:]]
)
def test_damaged_archives_are_refused(damage, tmp_path):
    (tmp_path / "a.tar.gz").write_bytes(damage(archive({"x": np.random.RandomState(0).bytes(5000)})))
    with pytest.raises(InputError, match="damaged archive"):
        unpack(tmp_path / "a.tar.gz", tmp_path / "a")
    assert [p.name for p in tmp_path.iterdir()] == ["a.tar.gz"]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Prepare a tensorflow-datasets set without TensorFlow."""
    import tensorflow_datasets as tfds

    class TinyColours(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            image, label = tfds.features.Image(shape=(None, None, 3)), tfds.features.ClassLabel(names=["red", "blue"])
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict({"image": image, "label": label})
            )

        def _split_generators(self, manager):
            return {"train": self._generate_examples(12), "test": self._generate_examples(6)}

        def _generate_examples(self, count):
            for i in range(count):
                yield (
                    i,
                    {"image": io.BytesIO(encode(Image.new("RGB", (9, 8), (RED, BLUE)[i % 2]), "PNG")), "label": i % 2},
                )

    root = tmp_path_factory.mktemp("tfds")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        TinyColours(data_dir=root, file_format="array_record").download_and_prepare()
    return str(root)


@pytest.mark.filterwarnings("ignore")
def test_tensorflow_datasets_without_tensorflow(prepared):
    data = open_dataset("tfds:tiny_colours", data_dir=prepared)
    assert (data.class_names, len(data.train), len(data.val)) == (("red", "blue"), 12, 6)
    for i in range(12):
        assert data.train.open(i).getpixel((0, 0)) == (RED, BLUE)[data.train.labels[i]]
    assert len(open_dataset("tfds:tiny_colours/train", data_dir=prepared).val) == 12
    with pytest.raises(InputError, match="no split nothing; it has"):
        open_dataset("tfds:tiny_colours/nothing", data_dir=prepared)
    with pytest.raises(InputError, match=r"preparing needs TensorFlow; pip install 'vit-jax\[tfds\]'"):
        open_dataset("tfds:mnist", data_dir=prepared)
    with pytest.raises(InputError, match="tfds:no_such_set: Dataset no_such_set not found"):
        open_dataset("tfds:no_such_set", data_dir=prepared)
