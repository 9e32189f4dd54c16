"""fit: the engine on arrays, folders and data sets, with the numbers of experiments.finetune and exact resume."""

import signal
from dataclasses import replace

import jax
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from experiments import finetune
from experiments.evaluate import __main__ as evaluate
from vit_jax import CONFIGS, InputError, VisionTransformer, load, load_card
from vit_jax.checkpoint import to_arrays
from vit_jax.data import open_digits
from vit_jax.data.augment.transforms import Augment
from vit_jax.data.inputs import as_dataset
from vit_jax.train import RECIPES, RunOptions, TrainingStopped, fit
from vit_jax.train import run as engine
from vit_jax.train.recipe import resolve_recipe

AUGMENT = Augment(flip=0.5)  # the others take long to compile
RECIPE = replace(RECIPES["scratch"], model=None, epochs=2, batch_size=16, warmup_epochs=0.0, augment=AUGMENT)


def make_model(num_classes=2, name="Pico_8"):
    return VisionTransformer(replace(CONFIGS[name], num_classes=num_classes), rngs=nnx.Rngs(0))


def make_arrays(count=32, seed=0):
    """Return noise whose left side is brighter for class 1."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    images = rng.integers(0, 120, (count, 20, 24, 3)).astype(np.uint8)
    images[:, :, :12] += (100 * labels[:, None, None, None]).astype(np.uint8)
    return images, labels


def assert_equal(first, second):
    ours, theirs = to_arrays(first), to_arrays(second)
    assert list(ours) == list(theirs)
    for name in ours:
        np.testing.assert_array_equal(np.asarray(ours[name]), np.asarray(theirs[name]), err_msg=name)


def losses(history):
    return [(record["epoch"], record["train_loss"], record["val_loss"], record["val_accuracy"]) for record in history]


@pytest.mark.slow
def test_arrays_give_the_numbers_of_the_program(tmp_path):
    flags = ["--model", "Pico_6", "--epochs", "2", "--seed", "3", "--ema", "0.9"]
    assert finetune.main([*flags, "--data", "digits", "--out", str(tmp_path / "run")]) == 0
    digits = open_digits(seed=3)
    train, val = (
        (np.stack([np.asarray(split.open(i)) for i in range(len(split))]), split.labels)
        for split in (digits.train, digits.val)
    )
    model = VisionTransformer(CONFIGS["Pico_6"], rngs=nnx.Rngs(3))
    seen = []
    result = fit(model, train, val, replace(RECIPES["digits"], epochs=2, seed=3, ema=0.9), on_epoch=seen.append)
    assert_equal(result.model, load(tmp_path / "run" / "best"))
    stored = load_card(tmp_path / "run" / "best").provenance["record"]
    assert losses([stored])[0] in losses(result.history)
    assert losses(seen) == losses(result.history)
    assert [record["epoch"] for record in result.history] == [1, 2]
    assert result.folder is None


def test_the_model_can_be_used_afterwards_unless_it_is_donated():
    recipe, data = replace(RECIPE, epochs=1), (make_arrays(), make_arrays(8))
    model, donated = make_model(), make_model()
    first = fit(model, *data, recipe)
    assert_equal(model, make_model())
    assert_equal(fit(model, *data, recipe).model, first.model)
    assert_equal(fit(donated, *data, recipe, donate=True).model, first.model)
    assert all(array.is_deleted() for array in jax.tree.leaves(donated))


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = fit(make_model(), make_arrays(), make_arrays(8, seed=1), RECIPE, on_epoch=lambda record: True)
    assert len(result.history) == 1  # on_epoch ended the training
    result = fit(make_model(), make_arrays(), make_arrays(8, seed=1), RECIPE, on_epoch=lambda record: np.bool_(True))
    assert len(result.history) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_stopped_run_resumes_exactly(tmp_path):
    recipe, data = replace(RECIPE, epochs=3), (make_arrays(), make_arrays(8, seed=1))
    alone = fit(make_model(), *data, recipe, out=tmp_path / "alone")

    def interrupt(record):
        if record["epoch"] == 1:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(TrainingStopped) as stopped:
        fit(make_model(), *data, recipe, out=tmp_path / "r", on_epoch=interrupt)
    assert (stopped.value.step, stopped.value.number) == (2, signal.SIGINT)
    resumed = fit(make_model(), *data, recipe, out=tmp_path / "r", resume=True)
    assert losses(resumed.history) == losses(alone.history)
    assert_equal(resumed.model, alone.model)
    assert_equal(resumed.model, load(tmp_path / "r" / "best"))
    with pytest.raises(InputError, match="keeps its recipe"):
        fit(make_model(), *data, replace(recipe, epochs=4), out=tmp_path / "r", resume=True)
    (images, labels), val = data
    sets = np.eye(2, dtype=bool)
    with pytest.raises(InputError, match="has changed since the run began: images have sets of labels; put"):
        fit(make_model(), (images, sets[labels]), (val[0], sets[val[1]]), recipe, out=tmp_path / "r", resume=True)
    with pytest.raises(InputError, match=r"has changed since the run began: .*1 labelled otherwise"):
        fit(make_model(), (images, [1, *labels[1:]]), val, recipe, out=tmp_path / "r", resume=True)
    with pytest.raises(InputError, match="exists already"):
        fit(make_model(), *data, recipe, out=tmp_path / "r")
    with pytest.raises(InputError, match="give out"):
        fit(make_model(), *data, recipe, resume=True)


def test_programs_name_the_data_that_python_alone_has(tmp_path, capsys):
    fit(make_model(), make_arrays(), make_arrays(8), replace(RECIPE, epochs=1), out=tmp_path / "r")
    assert evaluate.main([str(tmp_path / "r")]) == 2
    assert finetune.main(["--resume", str(tmp_path / "r")]) == 2
    assert capsys.readouterr().err.count("have no name; give --data") == 2


class Items:
    """A random-access data set of (picture, label)."""

    def __init__(self, images, labels):
        self.images, self.labels = images, labels

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return Image.fromarray(self.images[index]), int(self.labels[index])


def write_folder(root, images, labels):
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        (root / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(root / str(label) / f"{i:03}.png")
    return root


def test_every_kind_of_data_gives_the_same_model(tmp_path):
    train, val = make_arrays(), make_arrays(8, seed=1)
    order = np.argsort(train[1], kind="stable"), np.argsort(val[1], kind="stable")  # that of the folders
    train, val = (tuple(array[rows] for array in side) for side, rows in zip((train, val), order, strict=True))
    recipe = replace(RECIPE, epochs=1)
    expected = fit(make_model(), train, val, recipe)
    kinds = {
        "items": (Items(*train), Items(*val)),
        "folders": (write_folder(tmp_path / "train", *train), str(write_folder(tmp_path / "val", *val))),
        "a folder": (tmp_path, None),
        "a Dataset": (as_dataset(train, val), None),
        "two Datasets": (as_dataset(train, val), as_dataset(train, val)),
        "jax arrays": (tuple(map(jax.numpy.asarray, train)), tuple(map(jax.numpy.asarray, val))),
    }
    for kind, data in kinds.items():
        result = fit(make_model(), *data, recipe)
        assert losses(result.history) == losses(expected.history), kind
        assert_equal(result.model, expected.model)


def test_grey_images_and_the_classes_of_two_folders(tmp_path):
    images, labels = make_arrays(8)
    data = as_dataset((images[..., 0], labels), (images[..., :1], labels), class_names=["cat", "dog"])
    assert data.class_names == ("cat", "dog")
    assert [data.train.open(0).mode, data.val.open(0).mode] == ["L", "L"]
    write_folder(tmp_path / "a", images, labels)
    write_folder(tmp_path / "b", images[1::2], labels[1::2])
    data = as_dataset(tmp_path / "a", tmp_path / "b")
    assert data.val.labels.tolist() == [1, 1, 1, 1]  # of "1", the only class there
    with pytest.raises(InputError, match=r"train: only one class \(1\)"):
        as_dataset(tmp_path / "b", tmp_path / "a")
    write_folder(tmp_path / "c", images, labels + 1)
    with pytest.raises(InputError, match="val: class 2 is not one of the classes to train"):
        as_dataset(tmp_path / "a", tmp_path / "c")


def test_the_head_is_replaced_for_other_classes_and_says_so(tmp_path, capsys):
    data = make_arrays(), make_arrays(8)
    names = ["a", "b", "c"]
    result = fit(make_model(10), *data, replace(RECIPE, epochs=1), class_names=names, out=tmp_path / "r")
    assert result.model.config.num_classes == 3
    assert load_card(tmp_path / "r" / "best").class_names == tuple(names)
    assert "head: new, for 3 classes (the model has 10)" in capsys.readouterr().out
    fit(make_model(0), *data, replace(RECIPE, epochs=1))
    assert "head: new, for 2 classes (the model has none)" in capsys.readouterr().out
    fit(make_model(2), *data, replace(RECIPE, epochs=1))
    assert "head" not in capsys.readouterr().out


def test_sets_of_labels(capsys):
    images, labels = make_arrays()
    sets = np.stack([labels == 0, labels == 1, np.ones(32, bool)], axis=1)
    result = fit(make_model(), (images, sets), (images[:8], sets[:8]), replace(RECIPE, epochs=1))
    assert (result.model.config.task, result.model.config.num_classes) == ("multi_label", 3)
    assert 0 < result.history[0]["val_map"] <= 1
    assert "task: multi_label, 40 of 40 images have several labels, 0 have none" in capsys.readouterr().out
    fit(make_model(3), (images, sets), (images[:8], sets[:8]), replace(RECIPE, epochs=1))
    assert "head: new, because that of the model is for images with one label" in capsys.readouterr().out
    for val, message in (
        ((images, labels), "give both alike"),
        ((images, sets[:, :2]), "sets of 2 labels for 3 classes"),
    ):
        with pytest.raises(InputError, match=message):
            as_dataset((images, sets), val)


def test_the_recipe_changes_the_model_where_it_says_so(capsys):
    recipe = replace(RECIPE, epochs=1, dropout=0.1, drop_path=0.2, background="red", image_size=(32, 32), in_channels=1)
    model = fit(make_model(), make_arrays(), make_arrays(8), recipe).model
    assert (model.config.dropout, model.config.attention_dropout, model.config.drop_path) == (0.1, 0.1, 0.2)
    assert (model.config.image_size, model.config.in_channels) == ((32, 32), 1)
    assert model.config.preprocess.background == "#ff0000"
    assert "model: resized from 24x24 to 32x32 pixels" in capsys.readouterr().out


def test_wrong_arguments_are_refused():
    data = make_arrays(), make_arrays(8)
    for more, message in (
        (dict(recipe="pet"), "unknown recipe 'pet': one of pets"),
        (dict(options=RunOptions(profile=5)), "--profile writes into the run's folder; give out"),
        (dict(cache_gb=float("nan")), "cache_gb is a number of at least 0, not nan"),
        (dict(recipe=replace(RECIPE, in_channels=5)), "and the model takes 5"),
    ):
        with pytest.raises(InputError, match=message):
            fit(make_model(), *data, **dict(recipe=RECIPE) | more)
    with pytest.raises(InputError, match=r"int is no Recipe; give one, or a name: pets"):
        resolve_recipe(3, RECIPES, unset=())


def test_a_run_that_fails_before_its_first_step_leaves_no_folder(tmp_path, monkeypatch):
    data, recipe = (make_arrays(), make_arrays(8)), replace(RECIPE, batch_size=4, accumulate=4)
    monkeypatch.setattr(engine, "available_bytes", lambda: 1000)
    with pytest.raises(InputError, match="training needs"):
        fit(make_model(), *data, recipe, out=tmp_path / "runs" / "r")
    assert list(tmp_path.iterdir()) == []  # and no runs/
    (tmp_path / "r").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to("r")
    for out in ("r", "link"):
        with pytest.raises(InputError, match="training needs"):
            fit(make_model(), *data, recipe, out=tmp_path / out)
        assert list((tmp_path / "r").iterdir()) == []
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "r").stat().st_mode & 0o777 == 0o700
    monkeypatch.undo()

    def fail(record):
        raise RuntimeError("of the caller")

    with pytest.raises(RuntimeError, match="of the caller"):
        fit(make_model(), *data, RECIPE, out=tmp_path / "r", on_epoch=fail)
    result = fit(make_model(), *data, RECIPE, out=tmp_path / "r", resume=True)  # what has started can be resumed
    assert len(result.history) == 2


def test_a_failed_start_of_the_program_leaves_no_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(engine, "available_bytes", lambda: 1000)
    for flags in (
        ["--model", "Pico_8", "--no-augment", "--batch-size", "4", "--accumulate", "4"],
        ["--model", "Pico_9"],
        ["--data", "nowhere"],
        ["--model", "Pico_8", "--tensorboard", "--image-size", "25"],
        ["--weights", "nowhere.pth"],
    ):
        assert finetune.main(flags) == 2
        assert capsys.readouterr().err.startswith("error: ")
        assert list(tmp_path.iterdir()) == [], flags
