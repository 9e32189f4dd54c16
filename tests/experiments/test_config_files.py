"""--config of the training programs: flags from TOML, or the config.json of a run, which starts an equal one."""

import json
from dataclasses import replace

import pytest

from experiments import finetune
from experiments.common.training import parse_config
from experiments.train_caption import __main__ as train_caption
from tests.experiments.test_programs import AUGMENT, SMALL
from vit_jax import InputError
from vit_jax.train.logging import read_metrics
from vit_jax.train.run_folder import create_run_folder, read_run_config


def losses(run):
    records = read_metrics(run / "metrics.jsonl")
    return [record[name] for record in records for name in ("train_loss", "val_loss") if name in record]


@pytest.mark.slow
def test_a_runs_config_starts_an_equal_run(shapes, tmp_path):
    """Equal to the bit, and not by chance: another seed gives other losses."""
    first, second, other = tmp_path / "first", tmp_path / "second", tmp_path / "other"
    given = ["--data", str(shapes), *SMALL, *AUGMENT, "--epochs", "1", "--label-smoothing", "0.1", "--mixup", "0.3"]
    assert finetune.main([*given, "--out", str(first)]) == 0
    config = ["--config", str(first / "config.json")]
    assert finetune.main([*config, "--out", str(second)]) == 0
    assert finetune.main([*config, "--seed", "1", "--out", str(other)]) == 0
    assert read_run_config(second) == read_run_config(first)
    assert losses(second) == losses(first) != losses(other)
    assert len(losses(first)) == 2
    assert read_run_config(other) == replace(
        read_run_config(first), recipe=replace(read_run_config(first).recipe, seed=1)
    )


@pytest.mark.parametrize(
    ("program", "flags"),
    [
        (finetune.PROGRAM, ["--data", "digits", "--lr", "0.1", "--wd", "0", "--degrees", "3", "--image-size", "24x48"]),
        (
            finetune.PROGRAM,
            ["--recipe", "pets", "--data", "x", "--weights", "B_16", "--train", "lora", "--skip-corrupt"],
        ),
        (train_caption.PROGRAM, ["--recipe", "catr", "--data", "x", "--train-norms", "--max-length", "9"]),
    ],
)
def test_the_stored_config_is_read_back_whatever_the_defaults(program, flags, tmp_path):
    config = parse_config(program, flags)
    create_run_folder(tmp_path / "run", config, format=program.format)
    file = str(tmp_path / "run" / "config.json")
    assert parse_config(program, ["--config", file]) == config
    changed = parse_config(program, ["--config", file, "--epochs", "77", "--data", "y"])
    assert changed == replace(config, data="y", recipe=replace(config.recipe, epochs=77))


def test_flags_of_a_recipe_are_read_from_toml(tmp_path):
    file = tmp_path / "flags.toml"
    file.write_text(
        'data = "digits"\nlr = 0.25\ndegrees = 7.5\ncrop_scale = [0.5, 0.75]\nbatch = 12\nimage-size = "24x48"'
    )
    config = parse_config(finetune.PROGRAM, ["--config", str(file), "--batch-size", "20"])
    assert (config.recipe.learning_rate, config.recipe.batch_size, config.recipe.image_size) == (0.25, 20, (24, 48))
    assert (config.recipe.augment.degrees, config.recipe.augment.crop_scale) == (7.5, (0.5, 0.75))
    assert config.recipe.epochs == parse_config(finetune.PROGRAM, []).recipe.epochs  # what the file leaves out


def test_what_contradicts_a_runs_config_is_refused(tmp_path):
    create_run_folder(tmp_path / "run", parse_config(finetune.PROGRAM, []))
    file = tmp_path / "run" / "config.json"
    with pytest.raises(InputError, match="has a recipe; leave out --recipe"):
        parse_config(finetune.PROGRAM, ["--config", str(file), "--recipe", "pets"])
    with pytest.raises(InputError, match=r"a run of .*finetune; give one of .*train_caption"):
        parse_config(train_caption.PROGRAM, ["--config", str(file)])
    file.write_text(json.dumps(json.loads(file.read_text()) | {"dats": "x"}))
    with pytest.raises(InputError, match="unknown fields dats"):
        parse_config(finetune.PROGRAM, ["--config", str(file)])


def test_a_resumed_run_takes_no_other_runs_config(tmp_path, capsys):
    create_run_folder(tmp_path / "run", parse_config(finetune.PROGRAM, []))
    config = str(tmp_path / "run" / "config.json")
    assert finetune.main(["--resume", str(tmp_path / "run"), "--config", config]) == 2
    assert "a resumed run keeps its own settings; leave out --config" in capsys.readouterr().err
