"""A run's config.json that cannot be read is named, with the line or the field, and so is a run of another program."""

import json
from dataclasses import asdict

import pytest

from caption.train.run_config import FORMAT as CAPTION_FORMAT
from vit_jax import InputError
from vit_jax.train.recipe import RECIPES
from vit_jax.train.run_folder import FORMAT, PROGRAMS, RunConfig, create_run_folder, read_run_config

CONFIG = RunConfig(RECIPES["digits"], "digits")


def test_every_training_program_is_known_by_its_format():
    assert set(PROGRAMS) == {FORMAT, CAPTION_FORMAT}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{\n"format": 3,,\n}', r"config.json: not JSON \(.*line 2 column 13"),
        ("[1]", "config.json: not a JSON object"),
        ("{}", "config.json: not a run's config: its format is None, not 'vit_jax_run/1'"),
        ({"format": "vit_jax/1"}, "its format is 'vit_jax/1', not 'vit_jax_run/1'"),
        (
            {"format": CAPTION_FORMAT},
            "config.json: a run of experiments.train_caption; give one of experiments.finetune",
        ),
        ({"data": 3}, "config.json: not a run's config: data is a text, not 3"),
        ({"recipe": asdict(RECIPES["digits"]) | {"epochs": "ten"}}, "recipe.epochs is a whole number, not 'ten'"),
        ({"recipe": asdict(RECIPES["digits"]) | {"epochs": 0}}, "epochs is a whole number of at least 1, not 0"),
        ({"recipe": asdict(RECIPES["digits"]) | {"epoch": 1}}, "unknown fields recipe.epoch"),
        ({"recipe": None}, "recipe is an object, not None"),
    ],
)
def test_damaged_configs(content, message, tmp_path):
    create_run_folder(tmp_path / "run", CONFIG)
    path = tmp_path / "run" / "config.json"
    assert read_run_config(tmp_path / "run") == CONFIG
    text = content if isinstance(content, str) else json.dumps(json.loads(path.read_text()) | content)
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_run_config(tmp_path / "run")
    assert len(str(caught.value).splitlines()) == 1


def test_a_folder_without_a_config(tmp_path):
    with pytest.raises(InputError, match="no run to resume"):
        read_run_config(tmp_path)
