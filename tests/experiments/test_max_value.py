"""The value of white that a training run states is a part of its model, and every program uses it."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from PIL import Image

from caption.captioner import Captioner, SearchOptions
from caption.data.captions import read_table
from caption.tokenizer import build_tokenizer
from caption.train.recipe import RECIPES as CAPTION_RECIPES
from caption.train.run_config import CaptionRun
from experiments import predict
from experiments.explain import __main__ as explain
from experiments.train_caption.start import starting_captioner
from tests.create import create
from vit_jax import InputError, Pipeline, Preprocess, VisionTransformer, ViTConfig, load, save
from vit_jax.data import CachedImages, Split, open_folder
from vit_jax.settings import read_settings
from vit_jax.train import RECIPES, fit
from vit_jax.train.adapt import adapt_model

CONFIG = ViTConfig(
    image_size=(8, 8), patch_size=(4, 4), width=8, depth=1, num_heads=1, mlp_dim=8, num_classes=2,
    preprocess=Preprocess(max_value=4095.0),
)  # fmt: skip
DARK, WHITE = 40, 4095  # of 12 bits; a guess takes DARK for 8 bits


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8), value, np.uint16)).save(path)
    return path


@pytest.fixture
def folder(tmp_path):
    for name, value in (("dark", DARK), ("white", WHITE)):
        for number in range(3):
            write(tmp_path / "images" / name / f"{number}.png", value)
    return tmp_path / "images"


def test_images_of_a_model_have_its_range(folder):
    split = open_folder(folder).train
    for images in (split, split.take(range(len(split)))):
        cached = CachedImages(images, CONFIG.image_preprocess, budget=0)
        assert {int(cached[i][0].max()) for i in range(len(cached))} == {DARK >> 4, 255}
    own = Split(["a"], np.zeros(1, np.int32), lambda index: Image.new("L", (8, 8), 7))
    assert CachedImages(own, replace(CONFIG, preprocess=Preprocess()).image_preprocess, budget=0)[0][0].max() == 7


def test_pipeline_sees_the_range_of_its_model(folder):
    model = create(VisionTransformer, CONFIG)
    grey = np.full((8, 8, 3), DARK >> 4, np.uint8)
    dark = folder / "dark" / "0.png"
    np.testing.assert_array_equal(Pipeline(model).features([dark]), Pipeline(model).features([grey]))
    np.testing.assert_array_equal(Pipeline(model).heatmap(dark).image, grey)


def test_programs_end_at_a_value_above_the_range(folder, tmp_path, capsys):
    model = str(tmp_path / "model")
    save(create(VisionTransformer, CONFIG), model, class_names=("a", "b"))
    assert load(model).config.preprocess.max_value == 4095
    bright = write(folder / "dark" / "3.png", 5000)
    assert predict.main([model, str(folder), str(tmp_path / "o.csv")]) == 2
    assert explain.main([model, str(bright), "--out", str(tmp_path / "maps")]) == 2
    problem = f"error: {bright}: has values from 5000 to 5000, outside of 0 to 4095 (--max-value)"
    assert capsys.readouterr().err.count(problem) == 2


def test_a_run_keeps_the_range_in_its_config_and_its_model(folder, tmp_path, capsys):
    model = create(VisionTransformer, replace(CONFIG, preprocess=Preprocess()))
    recipe = replace(RECIPES["scratch"], model=None, epochs=1, batch_size=2, max_value=4095.0)
    result = fit(model, folder, None, recipe, out=tmp_path / "run")
    assert result.model.config.preprocess.max_value == 4095
    assert load(tmp_path / "run" / "best").config.preprocess.max_value == 4095
    assert json.loads((tmp_path / "run" / "config.json").read_text())["recipe"]["max_value"] == 4095
    with pytest.raises(InputError, match="a resumed run keeps its recipe"):
        fit(model, folder, None, replace(recipe, max_value=65535.0), out=tmp_path / "run", resume=True)
    assert "guessed" not in capsys.readouterr().err


def test_a_captioner_has_the_range_of_its_recipe(tmp_path):
    path = write(tmp_path / "a.png", DARK)
    (tmp_path / "a.csv").write_text("file,caption\na.png,dark\n")
    run = CaptionRun(replace(CAPTION_RECIPES["scenes"], max_value=4095.0), data="scenes")
    model = starting_captioner(run, 32)
    assert model.config.image_preprocess.max_value == 4095
    captioner = Captioner(model, build_tokenizer(["dark"]), SearchOptions(4), None)
    assert captioner.settings()["max_value"] == 4095
    assert captioner.open(path).getpixel((0, 0)) == (DARK >> 4,) * 3
    assert read_table(tmp_path / "a.csv").open(0, max_value=4095.0).getpixel((0, 0)) == (DARK >> 4,) * 3


def test_an_older_model_states_no_range_and_numbers_are_checked():
    stored = asdict(Preprocess())
    del stored["max_value"]
    assert read_settings(Preprocess, stored).max_value is None
    model = create(VisionTransformer, CONFIG)
    assert adapt_model(model, RECIPES["scratch"], 2).config.preprocess.max_value == 4095  # its own
    for value in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(InputError, match="max_value is a number above 0"):
            Preprocess(max_value=value)
