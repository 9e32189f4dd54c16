"""caption.train.fit: captioned images in memory or in a folder, exact resume, and errors in one line."""

import signal
from dataclasses import replace

import numpy as np
import pytest
from flax import nnx
from PIL import Image

import caption
from caption.checkpoint import load_card
from caption.data.captions import open_captions
from caption.data.in_memory import InMemoryCaptions
from caption.tokenizer import build_tokenizer, load_tokenizer
from caption.train import RECIPES, fit
from caption.train.run_config import FORMAT, CaptionRun
from experiments.train_caption import __main__ as train_caption
from vit_jax import InputError
from vit_jax.checkpoint import to_arrays
from vit_jax.data.inputs import UNNAMED
from vit_jax.train import TrainingStopped
from vit_jax.train import run as engine
from vit_jax.train.recipe import resolve_recipe
from vit_jax.train.run_folder import create_run_folder

RECIPE = replace(
    RECIPES["small"], model=None, longest=None, epochs=2, batch_size=4, max_length=8, warmup_epochs=0.0
)  # fmt: skip
TEXTS = ["a red disc", "a green disc", ["a blue disc", "the blue one"], "a grey disc"]


def make_data(count=8):
    """Return pictures of one colour each, and their captions."""
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [128, 128, 128]], np.uint8)
    images = [np.broadcast_to(colours[i % 4], (32, 40, 3)).copy() for i in range(count)]
    return images, [TEXTS[i % 4] for i in range(count)]


TOKENIZER = build_tokenizer(text for texts in TEXTS for text in ([texts] if isinstance(texts, str) else texts))


def make_model():
    config = replace(caption.CONFIGS["mini"], vocab_size=TOKENIZER.vocab_size)
    config = replace(config, preprocess=replace(config.preprocess, longest=32))
    return caption.CaptionTransformer(config, rngs=nnx.Rngs(0))


def losses(history):
    return [(record["epoch"], record["train_loss"], record["val_loss"]) for record in history]


def assert_equal(first, second):
    ours, theirs = to_arrays(first), to_arrays(second)
    for name in ours:
        np.testing.assert_array_equal(np.asarray(ours[name]), np.asarray(theirs[name]), err_msg=name)


def write_table(root, images, captions):
    root.mkdir()
    lines = ["file,caption"]
    for i, (image, texts) in enumerate(zip(images, captions, strict=True)):
        Image.fromarray(image).save(root / f"{i}.png")
        lines += [f"{i}.png,{text}" for text in ([texts] if isinstance(texts, str) else texts)]
    (root / "captions.csv").write_text("\n".join(lines) + "\n")


def test_a_run_resumes_exactly_and_equals_one_in_memory_and_the_files(tmp_path, capsys):
    images, captions = make_data()
    held = fit(make_model(), (images, captions), (images[:4], captions[:4]), RECIPE, tokenizer=TOKENIZER)
    assert held.folder is None
    assert [record["epoch"] for record in held.history] == [1, 2]

    def interrupt(record):
        if record["epoch"] == 1:
            signal.raise_signal(signal.SIGTERM)

    for split, count in (("train", 8), ("val", 4)):
        write_table(tmp_path / split, images[:count], captions[:count])
    data = [open_captions(tmp_path, split) for split in ("train", "val")]
    with pytest.raises(TrainingStopped):
        fit(make_model(), *data, RECIPE, tokenizer=TOKENIZER, out=tmp_path / "run", on_epoch=interrupt)
    resumed = fit(make_model(), *data, RECIPE, tokenizer=TOKENIZER, out=tmp_path / "run", resume=True)
    assert losses(resumed.history) == losses(held.history)
    assert_equal(resumed.model, held.model)
    assert load_tokenizer(tmp_path / "run").vocabulary == TOKENIZER.vocabulary
    assert load_card(tmp_path / "run" / "best").provenance["record"] in resumed.history
    with pytest.raises(InputError, match="keeps its recipe"):
        fit(make_model(), *data, replace(RECIPE, seed=9), tokenizer=TOKENIZER, out=tmp_path / "run", resume=True)
    fewer = data[0].take(range(4))
    message = r"4 removed \(first: 4.png\); put it back as it was, or start a new run with --weights"
    with pytest.raises(InputError, match=message):
        fit(make_model(), fewer, data[1], RECIPE, tokenizer=TOKENIZER, out=tmp_path / "run", resume=True)
    (tmp_path / "train" / "captions.csv").write_text(  # of the same number
        (tmp_path / "train" / "captions.csv").read_text().replace("2.png,a blue disc", "2.png,a red square")
    )
    changed = open_captions(tmp_path, "train")
    with pytest.raises(InputError, match=r"has changed since the run began: 1 captioned otherwise \(first: 2.png\);"):
        fit(make_model(), changed, data[1], RECIPE, tokenizer=TOKENIZER, out=tmp_path / "run", resume=True)
    (tmp_path / "run" / "captions.json.gz").unlink()
    fit(make_model(), changed, data[1], RECIPE, tokenizer=TOKENIZER, out=tmp_path / "run", resume=True)
    assert "a run of an older version, which stores no captions" in capsys.readouterr().out


def test_the_program_names_data_that_python_alone_has(tmp_path, capsys):
    config = CaptionRun(RECIPE, UNNAMED)
    create_run_folder(tmp_path / "run", config, format=FORMAT)
    assert train_caption.main(["--resume", str(tmp_path / "run")]) == 2
    assert "were passed to fit in Python and have no name" in capsys.readouterr().err


def test_pictures_in_memory_are_upright():
    picture = Image.fromarray(np.arange(24, dtype=np.uint8).reshape(2, 4, 3))
    picture.getexif()[0x0112] = 6  # shown turned by 90 degrees clockwise
    data = InMemoryCaptions.from_images([picture], ["a"], name="train")
    np.testing.assert_array_equal(np.asarray(data.open(0)), np.rot90(np.asarray(picture), -1))


def test_wrong_arguments_are_refused_and_leave_no_folder(tmp_path, monkeypatch):
    data = make_data()
    other = build_tokenizer(["one more word"])
    for arguments, more, message in (
        ((data, data, "smal"), {}, "unknown recipe 'smal': one of catr"),
        ((data, (data[0], data[1][:3]), RECIPE), {}, "val: 8 images and 3 captions"),
        ((data, ([], []), RECIPE), {}, "val: no captions"),
        (((data[0], ["", *data[1][1:]]), data, RECIPE), {}, "train image 0: an empty caption"),
        (((data[0], ["a disc", [], *data[1][2:]]), data, RECIPE), {}, "train image 1: an empty caption"),
        (((data[0], "a disc x"), data, RECIPE), {}, "train: captions are one text"),
        ((([data[0][0] / 255.0], ["x"]), data, RECIPE), {}, "train image 0: an image array is uint8"),
        ((3, data, RECIPE), {}, "train: int is no data; give a CaptionDataset"),
        ((data, data, RECIPE), dict(tokenizer=other), "tokenizer: has 8 WordPieces, and the model"),
        ((data, data, RECIPE), dict(resume=True), "no run to resume"),
        ((data, data, replace(RECIPE, max_length=10**4)), {}, "lower --max-length"),
    ):
        with pytest.raises(InputError, match=message):
            fit(make_model(), *arguments, **dict(tokenizer=TOKENIZER, out=tmp_path / "runs" / "r") | more)
        assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(engine, "available_bytes", lambda: 1000)
    recipe = replace(RECIPE, accumulate=4)
    with pytest.raises(InputError, match="training needs"):
        fit(make_model(), data, data, recipe, tokenizer=TOKENIZER, out=tmp_path / "runs" / "r")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="int is no CaptionRecipe"):
        resolve_recipe(3, RECIPES, unset=())


@pytest.mark.slow
def test_a_failed_start_of_the_program_leaves_no_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(engine, "available_bytes", lambda: 1000)
    flags = ["--max-length", "14", "--batch-size", "2", "--accumulate", "2"]
    for more in ([], ["--model", "nothing"], ["--vocabulary", "none", "--data", "nowhere"], ["--weights", "none.pth"]):
        assert train_caption.main([*flags, *more]) == 2
        assert capsys.readouterr().err.startswith("error: ")
        assert list(tmp_path.iterdir()) == [], more
