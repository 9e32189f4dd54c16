"""Grey and multi-band images in every program; the number of channels and the size that weights bring."""

import csv
import json

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import tests.reference as reference
from experiments import finetune, predict
from experiments.evaluate import __main__ as evaluate
from experiments.explain import __main__ as explain
from tests.create import create
from vit_jax import Preprocess, VisionTransformer, ViTConfig, load, save, with_in_channels

CONFIG = ViTConfig(
    image_size=(8, 12), patch_size=(4, 4), width=8, depth=1, num_heads=1, mlp_dim=8, num_classes=2,
    preprocess=Preprocess(mean=(0.4, 0.5, 0.6), crop=0.8),
)  # fmt: skip
NAMES = ("dark", "light")


def draw_pixels(channels, *, light):
    pixels = np.random.default_rng(light).integers(0, 130, (20, 30, channels), dtype=np.uint8)
    return pixels + np.uint8(100 * (light % 2))


def write_images(folder, channels):
    """Write three images of either class with so many channels, as PNG or as arrays."""
    for number in range(6):
        path = folder / NAMES[number % 2] / str(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = draw_pixels(channels, light=number)
        if channels in (1, 3, 4):
            Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(f"{path}.png")
        else:
            np.save(f"{path}.npy", pixels)
    return folder


def save_model(folder, channels):
    model = with_in_channels(create(VisionTransformer, CONFIG), channels)
    save(model, folder, class_names=NAMES)
    return model


@pytest.mark.parametrize("channels", [1, *(pytest.param(many, marks=pytest.mark.slow) for many in (4, 5))])
def test_predict_evaluate_and_explain(channels, tmp_path, capsys):
    images, model = write_images(tmp_path / "images", channels), save_model(tmp_path / "model", channels)
    suffix = "png" if channels < 5 else "npy"
    assert predict.main([str(tmp_path / "model"), str(images), str(tmp_path / "o.csv"), "--batch-size", "2"]) == 0
    with open(tmp_path / "o.csv", newline="") as file:
        rows = {row["filename"]: row["label"] for row in csv.DictReader(file)}
    expected = {}
    for number in range(6):
        bands = draw_pixels(channels, light=number)
        grey = with_in_channels(create(VisionTransformer, CONFIG), 1).config.image_preprocess
        resized = np.concatenate([grey.resize(Image.fromarray(band)) for band in np.moveaxis(bands, -1, 0)], axis=-1)
        logits = model((jnp.asarray(resized[None], jnp.float32) / 255 - 0.5) / 0.5)[0]
        expected[f"{NAMES[number % 2]}/{number}.{suffix}"] = NAMES[int(logits.argmax())]
    assert rows == expected

    right = np.mean([name.split("/")[0] == label for name, label in expected.items()])
    assert evaluate.main([str(tmp_path / "model"), "--data", str(images), "--out", str(tmp_path / "e")]) == 0
    assert json.loads((tmp_path / "e" / "evaluation.json").read_text())["accuracy"] == pytest.approx(right)

    source = str(images / "dark" / f"0.{suffix}")
    assert explain.main([str(tmp_path / "model"), source, "--out", str(tmp_path / "x"), "--method", "relevance"]) == 0
    stored = reference.load_arrays(tmp_path / "x" / "0.npz")
    assert NAMES[int(stored["predicted"])] == expected[f"dark/0.{suffix}"]
    assert stored["relevance"].shape == (1, 2, 3)
    assert (tmp_path / "x" / "0.png").is_file()

    (tmp_path / "masks").mkdir()
    mask = np.full((20, 30), 2, np.uint8)
    mask[5:15, 10:20] = 1
    Image.fromarray(mask).save(tmp_path / "masks" / "0.png")
    command = [str(tmp_path / "model"), source, "--evaluate", "--masks", str(tmp_path / "masks")]
    assert explain.main([*command, "--method", "attention"]) == 0
    assert "1 images; of the predicted class" in capsys.readouterr().out


def test_images_that_do_not_fit_are_named(tmp_path, capsys):
    images = write_images(tmp_path / "images", 3)
    save_model(tmp_path / "five", 5)
    for main, arguments in [
        (predict.main, [str(images), str(tmp_path / "o.csv")]),
        (explain.main, [str(images / "dark"), "--out", str(tmp_path / "x")]),
        (evaluate.main, ["--data", str(images)]),
    ]:
        assert main([str(tmp_path / "five"), *arguments]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "0.png: has 3 channels (RGB), and the model takes 5; give .npy arrays, uint8 [height, width, 5]" in line


def test_fine_tuning_adapts_channels_and_keeps_the_size_of_the_weights(tmp_path, capsys):
    images, out = write_images(tmp_path / "images", 3), tmp_path / "run"
    original = create(VisionTransformer, CONFIG)
    save(original, tmp_path / "rgb", class_names=NAMES)
    small = ["--epochs", "1", "--batch-size", "3", "--learning-rate", "0", "--weight-decay", "0"]
    command = ["--data", str(images), "--weights", str(tmp_path / "rgb"), "--in-channels", "1", *small]
    assert finetune.main([*command, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "8x12 (the size of the weights), 1 channels, " in printed
    assert "6 of them cached decoded, 0 MB" in printed
    trained = load(out / "best")
    np.testing.assert_allclose(
        trained.patch_embed.kernel[...], original.patch_embed.kernel[...].sum(axis=2, keepdims=True), atol=1e-6
    )
    assert (trained.config.image_size, trained.config.preprocess.mean) == ((8, 12), (0.5,))
    assert json.loads((out / "config.json").read_text())["recipe"]["in_channels"] == 1


def test_fine_tuning_on_arrays(tmp_path, capsys):
    images = write_images(tmp_path / "images", 5)
    save_model(tmp_path / "five", 5)
    command = ["--data", str(images), "--weights", str(tmp_path / "five"), "--epochs", "1", "--batch-size", "3"]
    assert finetune.main([*command, "--out", str(tmp_path / "no")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    zeros = "--contrast 0 --saturation 0 --hue 0"
    assert f"--contrast, --saturation, --hue: undefined for images of 5 channels; give {zeros}" in line
    assert not (tmp_path / "no").exists()
    assert finetune.main([*command, *zeros.split(), "--image-size", "12", "--out", str(tmp_path / "run")]) == 0
    assert "12x12, 5 channels" in capsys.readouterr().out
    assert load(tmp_path / "run" / "best").config.in_channels == 5
