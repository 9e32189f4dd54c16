"""Transparent images show a stated background in every program, and the model carries it."""

import io
import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from flax import nnx
from PIL import Image

from caption.preprocess import CaptionPreprocess
from caption.train.recipe import RECIPES as CAPTION_RECIPES
from caption.train.run_config import CaptionRun
from experiments.train_caption.start import starting_captioner
from vit_jax import CONFIGS, ImagePreprocess, InputError, Preprocess, VisionTransformer, load, save
from vit_jax.background import parse_colour
from vit_jax.channels import to_channels
from vit_jax.data import CachedImages, Split, open_picture, open_rgb
from vit_jax.settings import read_settings
from vit_jax.train.adapt import adapt_model
from vit_jax.train.recipe import RECIPES

BLACK, RED = (0, 0, 0), (255, 0, 0)


def ink(mode):
    """A 4x4 image, black on the left half and transparent black on the right, and how to save it as PNG."""
    alpha = Image.new("L", (4, 4), 0)
    alpha.paste(255, (0, 0, 2, 4))
    if mode in ("LA", "RGBA"):
        image = Image.new(mode.removesuffix("A"), (4, 4), 0)
        image.putalpha(alpha)
        return image, {}
    if mode == "P":
        image = Image.new("P", (4, 4), 1)
        image.putpalette([0, 0, 0, 0, 0, 0])
        image.paste(0, (0, 0, 2, 4))
        return image, {"transparency": bytes([255, 0])}
    keys = {"RGB": ((1, 1, 1), (1, 1, 1)), "L": (1, 1)}
    colour, key = keys[mode]
    image = Image.new(mode, (4, 4), colour)
    image.paste(0 if mode == "L" else BLACK, (0, 0, 2, 4))
    return image, {"transparency": key}


def encode(image, options):
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P", "RGB", "L"])
def test_every_kind_of_transparency_shows_the_background(mode):
    data = encode(*ink(mode))
    for colour, background in ((255, 255, 255), {}), (RED, {"background": "red"}):
        image = open_rgb(data, **background)
        assert (image.mode, image.getpixel((0, 0)), image.getpixel((3, 3))) == ("RGB", BLACK, colour)
    grey = open_picture(data, 1, background="#808080")
    assert (grey.mode, grey.getpixel((0, 0)), grey.getpixel((3, 3))) == ("L", 0, 128)
    assert open_picture(data, 4).getpixel((3, 3))[3] == 0  # four channels keep alpha as a band


def test_half_transparent_pixels_are_mixed():
    image = Image.new("RGBA", (1, 1), (200, 0, 100, 51))  # a fifth
    assert to_channels(image, 3, background="#64c800").getpixel((0, 0)) == (120, 160, 20)


def test_opaque_images_are_unchanged():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=np.uint8))
    assert to_channels(image, 3, background="red") is image


def test_preprocess_and_cached_images_use_the_background_of_the_model(tmp_path):
    data = encode(*ink("LA"))
    (tmp_path / "a.png").write_bytes(data)
    preprocess = ImagePreprocess((4, 4), Preprocess(background="red"))
    expected = np.asarray(open_rgb(data, background="red"))
    np.testing.assert_array_equal(preprocess.resize(open_picture(data)), expected)
    images = CachedImages(Split.from_files([tmp_path / "a.png"]), preprocess, budget=0)
    np.testing.assert_array_equal(images[0][0], expected)
    caption = CaptionPreprocess(longest=4, background="red")
    np.testing.assert_array_equal(caption.resize(open_picture(data)), expected)
    np.testing.assert_array_equal(caption(open_picture(data)), caption.normalize(expected))


@pytest.mark.parametrize(
    ("text", "expected"), [("white", "#ffffff"), ("Red", "#ff0000"), ("#0f0", "#00ff00"), ("#A0b1C2", "#a0b1c2")]
)
def test_colours(text, expected):
    assert parse_colour(text) == Preprocess(background=text).background == expected


@pytest.mark.parametrize("text", ["", "whitish", "#12", "#ff000080", "255,0,0"])
def test_other_texts_are_no_colours(text):
    with pytest.raises(InputError, match=r"background .*: not a colour; give a name, such as white, or #rrggbb"):
        Preprocess(background=text)


def test_a_saved_model_keeps_its_background_and_an_older_one_has_white(tmp_path):
    config = CONFIGS["Pico_8"]
    stored = asdict(config.preprocess)
    del stored["background"]
    assert read_settings(Preprocess, stored).background == "#ffffff"
    red = replace(config, preprocess=replace(config.preprocess, background="red"))
    save(VisionTransformer(red, rngs=nnx.Rngs(0)), tmp_path / "m")
    assert load(tmp_path / "m").config.preprocess.background == "#ff0000"
    card = json.loads((tmp_path / "m" / "config.json").read_text())
    assert "#ff0000" in json.dumps(card)


def test_training_programs_give_their_models_the_background_of_the_recipe():
    recipe = replace(RECIPES["scratch"], background="Red")
    assert recipe.background == "#ff0000"
    with pytest.raises(InputError, match="not a colour"):
        replace(recipe, background="colourless")
    model = VisionTransformer(CONFIGS["Pico_8"], rngs=nnx.Rngs(0))
    assert adapt_model(model, recipe, 10).config.preprocess.background == "#ff0000"
    assert adapt_model(model, RECIPES["scratch"], 10).config.preprocess.background == "#ffffff"
    run = CaptionRun(replace(CAPTION_RECIPES["scenes"], background="blue"), data="scenes")
    assert starting_captioner(run, 32).config.image_preprocess.background == "#0000ff"
