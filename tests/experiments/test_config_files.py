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


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not JSON (Expecting value"),
        ("[1]", "not a JSON object"),
        ("[" * 100_000, "not JSON (maximum recursion"),
        ("{}", "not a run's config: its format is None, not 'vit_jax_run/1'; give that of a run"),
        ('{"format": "vit_jax/1"}', "not a run's config: its format is 'vit_jax/1', not"),
        ('{"format": ["vit_jax_run/1"]}', "not a run's config: its format is ['vit_jax_run/1'], not"),
        ('{"format": "caption_run/1"}', "a run of experiments.train_caption; give one of experiments.finetune"),
        ('{"format": "vit_jax_run/1", "recipe": null, "data": "x"}', "not a run's config: recipe is an object, not None"),
        ('{"format": "vit_jax_run/1", "recipe": {"model": 3, "epochs": 1}, "data": "x"}', "not a run's config: recipe.model"),
        ('{"format": "vit_jax_run/1", "recipe": {"model": "x", "epochs": 0}, "data": "x"}', "not a run's config: epochs is"),
        ('{"format": "vit_jax_run/1", "recipe": {"model": "x", "epochs": 1}}', "not a run's config: missing fields data"),
        ('{"format": "vit_jax_run/1", "recipe": {"epochz": 1}, "data": "x"}', "not a run's config: unknown fields recipe.epochz"),
    ],
)  # fmt: skip
def test_a_json_file_that_is_no_runs_config(content, message, tmp_path, capsys):
    file = tmp_path / "config.json"
    file.write_text(content)
    assert finetune.main(["--config", str(file), "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {file}: {message}")
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("program", "before", "given", "expected"),
    [  # expected: (recipe.model, weights)
        (finetune.PROGRAM, ["--data", "digits", "--model", "B_16", "--from-scratch"], ["--weights", "w"], (None, "w")),
        (finetune.PROGRAM, ["--data", "digits", "--model", "Pico_8"], ["--weights", "w"], (None, "w")),
        (finetune.PROGRAM, ["--data", "digits", "--model", "Pico_8"], ["--model", "B_16"], ("B_16", "B_16")),
        (finetune.PROGRAM, ["--data", "x", "--model", "B_16"], ["--from-scratch"], ("B_16", None)),
        (finetune.PROGRAM, ["--data", "x", "--model", "B_16"], ["--model", "Pico_8"], ("Pico_8", None)),
        (train_caption.PROGRAM, ["--data", "x", "--encoder", "e"], ["--weights", "w"], (None, "w")),
        (train_caption.PROGRAM, ["--data", "x", "--weights", "w"], ["--model", "mini"], ("mini", None)),
    ],
)
def test_flags_of_the_origin_replace_the_whole_origin_of_a_config(program, before, given, expected, tmp_path):
    config = parse_config(program, before)
    create_run_folder(tmp_path / "run", config, format=program.format)
    changed = parse_config(program, ["--config", str(tmp_path / "run" / "config.json"), *given])
    assert (changed.recipe.model, changed.weights) == expected
    assert replace(changed.recipe, model=None) == replace(config.recipe, model=None)
    assert getattr(changed, "encoder", None) is None


def test_a_config_without_a_model_needs_one_to_train_from_scratch(tmp_path):
    create_run_folder(tmp_path / "run", parse_config(finetune.PROGRAM, ["--data", "x", "--weights", "w"]))
    file = tmp_path / "run" / "config.json"
    with pytest.raises(InputError, match=r"config.json: names no model, since its run started from w; give --model"):
        parse_config(finetune.PROGRAM, ["--config", str(file), "--from-scratch"])
    with pytest.raises(InputError, match="--from-scratch and --weights contradict one another"):
        parse_config(finetune.PROGRAM, ["--config", str(file), "--from-scratch", "--weights", "v"])


def test_a_resumed_run_takes_no_other_runs_config(tmp_path, capsys):
    create_run_folder(tmp_path / "run", parse_config(finetune.PROGRAM, []))
    config = str(tmp_path / "run" / "config.json")
    assert finetune.main(["--resume", str(tmp_path / "run"), "--config", config]) == 2
    assert "a resumed run keeps its own settings; leave out --config" in capsys.readouterr().err
