"""Settings read from JSON: every value has the type of its field, or the field is named."""

from dataclasses import asdict, replace

import pytest

from vit_jax import CONFIGS, InputError, ViTConfig
from vit_jax.settings import read_settings
from vit_jax.train.recipe import RECIPES, recipe_from_dict


def test_what_was_stored_is_read_back():
    for config in CONFIGS.values():
        assert read_settings(ViTConfig, asdict(config)) == config
    for recipe in RECIPES.values():
        assert recipe_from_dict(recipe.as_dict()) == recipe


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ({"width": "64"}, "^width is a whole number, not '64'$"),
        ({"width": 64.0}, "^width is a whole number, not 64.0$"),
        ({"depth": True}, "^depth is a whole number, not True$"),
        ({"depth": None}, "^depth is a whole number, not None$"),
        ({"dropout": "²"}, "^dropout is a number, not '²'$"),
        ({"norm_eps": float("nan")}, "^norm_eps is a number, not nan$"),
        ({"class_token": "no"}, "^class_token is true or false, not 'no'$"),
        ({"image_size": [24]}, r"^image_size is a list of 2 x a whole number, not \(24,\)$"),
        ({"image_size": 24}, "^image_size is a list of 2 x a whole number, not 24$"),
        ({"pooling": 3}, "^pooling is a text, not 3$"),
        ({"preprocess": [1]}, r"^preprocess is an object, not \(1,\)$"),
        ({"preprocess": {"crop": "0.9"}}, "^preprocess.crop is a number or null, not '0.9'$"),
        ({"preprocess": {"mean": [0.5, None]}}, r"^preprocess.mean is a list of a number, not \(0.5, None\)$"),
    ],
)
def test_values_of_another_type(stored, message):
    with pytest.raises(InputError, match=message):
        read_settings(ViTConfig, stored)


@pytest.mark.parametrize(
    "change", [{"seed": -1}, {"seed": 2**32}, {"epochs": 0}, {"epochs": True}, {"learning_rate": float("inf")}]
)
def test_values_out_of_range(change):
    with pytest.raises(InputError, match=f"{next(iter(change))} is a"):
        replace(RECIPES["digits"], **change)


def test_an_integer_beyond_every_float():
    assert replace(RECIPES["digits"], epochs=10**400).epochs == 10**400
