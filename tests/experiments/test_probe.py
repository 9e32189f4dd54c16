"""evaluate --probe: the accuracy of a backbone's features on a folder, with and without a head."""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest
from PIL import Image

from experiments import finetune, predict
from experiments.common.models import open_model, starting_model
from experiments.evaluate import __main__ as evaluate
from experiments.evaluate.probe import check_probe_data
from experiments.explain import __main__ as explain
from tests.create import create
from vit_jax import InputError, VisionTransformer, ViTConfig, load, save
from vit_jax.data.dataset import Dataset, Split
from vit_jax.probe import accuracy_interval, fit_knn, fit_linear
from weights_convert import export
from weights_convert.formats import write_checkpoint

CONFIG = ViTConfig(image_size=(16, 16), patch_size=(8, 8), width=16, depth=1, num_heads=2, mlp_dim=24, num_classes=0)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "bare"
    save(create(VisionTransformer, CONFIG), folder)
    return folder


def read_features(folder, files):
    model = load(folder)
    images = np.stack([model.config.image_preprocess(Image.open(file)) for file in files])
    return np.asarray(jax.jit(lambda m, x: m(x))(model, images))


@pytest.mark.parametrize("probe", ["knn", pytest.param("linear", marks=pytest.mark.slow)])
def test_a_probe_of_a_folder(backbone, shapes, tmp_path, capsys, probe):
    """The accuracy is that of the probe on the features of each image alone."""
    command = [str(backbone), "--data", str(shapes), "--probe", probe, "--out", str(tmp_path / "out")]
    more = ["--neighbors", "3"] if probe == "knn" else []
    assert evaluate.main([*command, *more, "--batch-size", "3"]) == 0
    train, val = (sorted((shapes / split).iterdir()) for split in ("train", "val"))
    labels, expected = (np.array([int(file.name.startswith("disc")) for file in files]) for files in (train, val))
    features = read_features(backbone, train)
    fitted = fit_knn(features, labels, neighbors=3) if probe == "knn" else fit_linear(features, labels)
    correct = int((fitted.predict(read_features(backbone, val)) == expected).sum())
    low, high = accuracy_interval(correct, 10)
    printed = capsys.readouterr().out
    assert "features: 28 training and 10 validation images, 16 values each" in printed
    assert f"accuracy {correct / 10:.4f} ({correct} of 10 images), 95 % interval [{low:.4f}, {high:.4f}]" in printed
    result = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert result["accuracy"] == pytest.approx(correct / 10)
    assert result["class_names"] == ["bar", "disc"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--data", "SHAPES"], "has no classification head; give --probe knn or linear"),
        (["--data", "SHAPES", "--probe", "knn", "--split", "train"], "leave out --split"),
        (["--probe", "knn"], "give --data"),
        (["--data", "SHAPES", "--probe", "linear", "--neighbors", "3"], "--neighbors is an option of --probe knn"),
        (["--data", "SHAPES", "--neighbors", "3"], "--neighbors is an option of --probe knn"),
    ],
)
def test_wrong_flags(backbone, shapes, capsys, flags, message):
    assert evaluate.main([str(backbone), *(str(shapes) if flag == "SHAPES" else flag for flag in flags)]) == 2
    assert message in capsys.readouterr().err


def write_hugging_face(model, folder):
    """Write a model of two classes as transformers' ViTForImageClassification does."""
    write_checkpoint(folder / "model.safetensors", export(model, layout="hf_vit"))
    stored = {
        "model_type": "vit", "image_size": 16, "patch_size": 8, "hidden_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2, "intermediate_size": 24, "layer_norm_eps": 1e-6, "id2label": {"0": "cat", "1": "dog"},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(stored))


def test_a_folder_of_hugging_face_is_opened_as_it_is(tmp_path):
    """Its config states what weights alone do not, such as the number of heads."""
    model = create(VisionTransformer, replace(CONFIG, num_classes=2))
    write_hugging_face(model, tmp_path)
    opened, card = open_model(tmp_path)
    assert card.class_names == ("cat", "dog")
    jax.tree.map(np.testing.assert_array_equal, jax.tree.leaves(opened), jax.tree.leaves(model))
    (tmp_path / "config.json").rename(tmp_path / "other.json")
    with pytest.raises(InputError, match="heads"):
        open_model(tmp_path / "model.safetensors")


def test_a_captioner_is_named_as_one(shapes, tmp_path, capsys):
    for name, content in (("config.json", json.dumps({"format": "caption/1"})), ("model.safetensors", "")):
        (tmp_path / name).write_text(content)
    for main, arguments in (
        (predict.main, [str(tmp_path), str(shapes), str(tmp_path / "o.csv")]),
        (explain.main, [str(tmp_path), str(shapes), "--out", str(tmp_path / "o")]),
        (evaluate.main, [str(tmp_path), "--data", "table.csv"]),
        (finetune.main, ["--weights", str(tmp_path), "--data", str(shapes), "--out", str(tmp_path / "o")]),
    ):
        assert main(arguments) == 2
        assert "a captioner, and this needs an image model" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors"}


def test_fine_tuning_starts_from_a_folder_of_hugging_face(tmp_path):
    model = create(VisionTransformer, replace(CONFIG, num_classes=2))
    write_hugging_face(model, tmp_path)
    options = dict(name=None, num_classes=3, image_size=None, seed=0)
    started = starting_model(weights=str(tmp_path), **options)
    assert started.config.num_classes == 3
    np.testing.assert_array_equal(started.patch_embed.kernel[...], model.patch_embed.kernel[...])


@pytest.mark.parametrize(
    ("labels", "message"),
    [(np.ones((2, 3), bool), "have several labels"), (np.zeros(2, np.int32), "have one class; a probe needs two")],
)
def test_labels_that_no_probe_can_use(labels, message):
    split = Split.from_files(["a.png", "b.png"], labels)
    with pytest.raises(InputError, match=message):
        check_probe_data(Dataset("data", ("a", "b"), split, split))
