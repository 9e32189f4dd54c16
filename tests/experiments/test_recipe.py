"""The settings of a recipe: each has a flag, is off by default and is validated; recipes of older runs read back."""

import argparse
import json
from dataclasses import asdict, fields, replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from caption.train.recipe import NO_AUGMENT, CaptionRecipe
from caption.train.recipe import RECIPES as CAPTION_RECIPES
from caption.train.run_config import CaptionRun
from experiments import finetune
from experiments.common.flags import (
    add_batch_size_flag,
    add_flags,
    add_recipe_flags,
    changed_flags,
    override_recipe,
    read_flags,
)
from experiments.train_caption import __main__ as train_caption
from vit_jax import InputError, ViTConfig
from vit_jax.checkpoint import abstract_model, to_arrays
from vit_jax.data.augment.transforms import Augment
from vit_jax.settings import fields_of, read_settings
from vit_jax.train.checkpoints import current_name
from vit_jax.train.optim import FROZEN, adamw_by_group, make_optimizer, make_schedule, parameter_groups
from vit_jax.train.options import RunOptions
from vit_jax.train.recipe import RECIPES, Recipe, recipe_from_dict
from vit_jax.train.run_folder import RunConfig

# Another value than the default for every setting beyond the basic recipe.
OTHER = {
    "drop_path": "0.1", "label_smoothing": "0.1", "mixup": "0.8", "cutmix": "1", "train": "head", "lora_rank": "4",
    "lora_alpha": "8", "lora_targets": "all", "layer_decay": "0.75", "clip_norm": "1", "ema": "0.99", "accumulate": "2", "dtype": "bfloat16",
    "patience": "3", "step_epochs": "3", "rand_ops": "2", "rand_magnitude": "5", "in_channels": "1", "background": "#123456",
    "max_value": "4095",
    "balance": "sampler",
}  # fmt: skip


def parse(*flags):
    parser = argparse.ArgumentParser(allow_abbrev=False)
    add_recipe_flags(parser, RECIPES)
    return parser.parse_args(flags)


@pytest.mark.parametrize("kind", [Recipe, CaptionRecipe, Augment, RunOptions, RunConfig, CaptionRun])
def test_every_setting_is_described(kind):
    described = fields_of(kind)
    assert {f.name for f in fields(kind)} - set(described) <= {"augment", "recipe"}
    assert all(field.description.help for field in described.values())


def test_every_setting_beyond_the_basic_recipe_is_tested():
    assert set(OTHER) >= {name for name, field in fields_of(Recipe).items() if field.description.extra}


def test_help_has_the_defaults_of_every_recipe(capsys):
    with pytest.raises(SystemExit):
        parse("--help")
    text = " ".join(capsys.readouterr().out.split())
    assert "passes over the training data (default: the recipe's: 10 in pets, 60 in scratch, 36 in digits)" in text
    assert "AdamW: decay of the first moment (default: 0.9)" in text


@pytest.mark.parametrize("recipes", [RECIPES, CAPTION_RECIPES])
def test_flags_have_the_aliases_that_users_of_other_libraries_expect(recipes):
    """Both kinds of training have them, and those of the programs that read batches."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    add_recipe_flags(parser, recipes)
    given = [
        "--lr",
        "1e-3",
        "--wd=0.1",
        "--num-epochs",
        "7",
        "--warmup",
        "0.5",
        "--clip-grad",
        "2",
        "--smoothing",
        "0.1",
    ]
    args = parser.parse_args(given)
    values = (
        args.learning_rate,
        args.weight_decay,
        args.epochs,
        args.warmup_epochs,
        args.clip_norm,
        args.label_smoothing,
    )
    assert values == (1e-3, 0.1, 7, 0.5, 2.0, 0.1)
    other = argparse.ArgumentParser(allow_abbrev=False)
    add_batch_size_flag(other, 4)
    for name in ("--batch-size", "--batch", "--bs"):
        assert parser.parse_args([name, "5"]).batch_size == other.parse_args([name, "5"]).batch_size == 5
    assert other.parse_args([]).batch_size == 4


def test_an_alias_is_not_another_flag():
    """No two settings of a program have a name in common."""
    for kinds in ((Recipe, Augment, RunConfig, RunOptions), (CaptionRecipe, CaptionRun, RunOptions)):
        names = [n for kind in kinds for f in fields_of(kind).values() for n in (f.name, *f.description.aliases)]
        assert len(names) == len(set(names))


def test_options_that_are_not_given_have_the_defaults_of_their_dataclass():
    parser = argparse.ArgumentParser()
    add_flags(parser, RunOptions)
    assert read_flags(parser.parse_args([]), RunOptions) == RunOptions()
    flags = ["--fsdp", "--no-memory-check", "--scan-layers", "--profile", "--no-compile-cache"]
    expected = RunOptions(fsdp=True, memory_check=False, scan_layers=True, profile=10, compile_cache=False)
    assert read_flags(parser.parse_args(flags), RunOptions) == expected


@pytest.mark.parametrize("name", OTHER)
def test_a_resumed_run_keeps_each_of_them(name):
    recipe, flag = RECIPES["pets"], "--" + name.replace("_", "-")
    if name.startswith("lora"):
        recipe = replace(recipe, train="lora")
    args = parse(flag, OTHER[name])
    changed = override_recipe(recipe, args, Augment())
    assert changed_flags(recipe, changed) == [flag]
    assert changed_flags(changed, override_recipe(changed, args, Augment())) == []
    assert recipe_from_dict(json.loads(json.dumps(changed.as_dict()))) == changed != recipe


def test_unknown_fields_are_an_error_that_names_them():
    stored = json.loads(json.dumps(asdict(RunConfig(RECIPES["pets"], data="digits"))))
    assert read_settings(RunConfig, stored).recipe == RECIPES["pets"]
    stored["recipe"] |= {"momentum": 0.9, "augment": stored["recipe"]["augment"] | {"blur": 1}}
    with pytest.raises(InputError, match=r"unknown fields recipe.momentum;"):
        read_settings(RunConfig, stored)
    del stored["recipe"]["momentum"]
    with pytest.raises(InputError, match=r"unknown fields recipe.augment.blur;"):
        read_settings(RunConfig, stored)
    with pytest.raises(InputError, match=r"missing fields recipe\.epochs"):
        read_settings(RunConfig, {"recipe": {"model": "x"}, "data": "digits"})


def test_a_caption_run_recorded_with_max_norm_reads_back(tmp_path, capsys):
    recipe = replace(CAPTION_RECIPES["small"], clip_norm=0.5)
    stored = json.loads(json.dumps(asdict(CaptionRun(recipe, data="scenes"))))
    stored["recipe"]["max_norm"] = stored["recipe"].pop("clip_norm")
    (tmp_path / "config.json").write_text(json.dumps({"format": "caption_run/1", "command": [], **stored}))
    for flags, changed in [
        (["--max-norm", "0.6"], "--clip-norm"),
        (["--recipe", "small"], "--recipe"),
        (["--captions-per-image", "2", "--epochs", "7"], "--epochs, --captions-per-image"),
        (["--angles", "0", "90"], "--angles"),
    ]:
        assert train_caption.main(["--resume", str(tmp_path), *flags]) == 2
        assert f"a resumed run keeps its settings; leave out {changed}\n" in capsys.readouterr().err
    assert read_settings(CaptionRun, stored).recipe == recipe


def test_no_augment_starts_from_no_augmentation():
    args = parse("--no-augment", "--flip", "0.5")
    assert override_recipe(RECIPES["pets"], args, Augment()).augment == Augment(flip=0.5)
    assert NO_AUGMENT.angles == (0,)


def test_runs_recorded_before_these_settings_read_back():
    """Read a recipe that was written before the settings beyond the basic recipe existed."""
    text = """{"model": "B_16_imagenet1k", "epochs": 10, "image_size": [384, 384], "batch_size": 16,
        "learning_rate": 1e-05, "schedule": "constant", "warmup_epochs": 0.0, "beta1": 0.9, "beta2": 0.999, "eps": 1e-08,
        "weight_decay": 0.01, "dropout": null, "augment": {"crop_scale": [0.08, 1.0], "crop_ratio": [0.75,
        1.3333333333333333], "degrees": 30.0, "flip": 0.5, "brightness": 0.5, "contrast": 0.5, "saturation": 0.5,
        "hue": 0.5}, "seed": 0}"""
    assert recipe_from_dict(json.loads(text)) == RECIPES["pets"]


def test_a_wrong_setting_is_one_line_and_leaves_no_folder(tmp_path, capsys):
    out = tmp_path / "run"
    for flags, message in [
        (["--accumulate", "5"], "accumulate 5 does not divide the batch size 64"),
        (["--layer-decay", "0.5", "--train", "lora"], "layer_decay is for training all layers"),
        (["--lora-rank", "4"], "--lora-rank has no effect with --train all; give --train lora"),
        (["--layer-decay", "nan"], "argument --layer-decay: 'nan' is not a number in (0, 1]"),
        (["--patience", "-1"], "argument --patience: '-1' is not a whole number of at least 0"),
        (["--rand-ops", "2", "--rand-magnitude", "31"], "'31' is not a whole number in [0, 30]"),
    ]:
        try:
            code = finetune.main(["--data", "digits", "--out", str(out), *flags])
        except SystemExit as stop:  # argparse exits by itself
            code = stop.code
        assert code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
    assert not out.exists()


def test_the_basic_recipe_is_optaxs_adamw_to_the_bit():
    recipe = Recipe(model="x", epochs=2, schedule="cosine", warmup_epochs=1.0, weight_decay=0.02, beta2=0.99, eps=1e-6)
    schedule = make_schedule(recipe, 3)
    rng = np.random.default_rng(0)
    parameters = {name: jnp.asarray(rng.normal(size=(3, 4)), jnp.float32) for name in "ab"}
    results = []
    for tx in (make_optimizer(recipe, schedule, parameters), optax.adamw(schedule, 0.9, 0.99, 1e-6, weight_decay=0.02)):
        state, now, update = tx.init(parameters), parameters, jax.jit(tx.update)
        for i in range(4):
            updates, state = update(jax.tree.map(lambda p, i=i: jnp.sin(p + i), parameters), state, now)
            now = optax.apply_updates(now, updates)
        results.append((now, state))
    assert jax.tree.structure(results[0]) == jax.tree.structure(results[1])
    jax.tree.map(np.testing.assert_array_equal, *results)


def test_one_adamw_by_group_is_one_adamw_per_group():
    """They agree bitwise. Frozen parameters have no state; parameter names in older checkpoints are mapped."""
    rng = np.random.default_rng(0)
    parameters = {name: jnp.asarray(rng.normal(size=(3, 4)), jnp.float32) for name in "abc"}
    groups = {"a": "low", "b": "high", "c": FROZEN}
    numbers = dict(b1=0.9, b2=0.99, eps=1e-6, weight_decay=0.02)
    rates = {"low": optax.linear_schedule(0.0, 1e-3, 3), "high": optax.constant_schedule(1e-2)}
    optimizers = {name: optax.adamw(rate, **numbers) for name, rate in rates.items()} | {FROZEN: optax.set_to_zero()}
    per_group = optax.chain(optax.masked(optax.set_to_zero(), {"a": False, "b": False, "c": True}),
                            optax.multi_transform(optimizers, groups))  # fmt: skip
    results, states = [], []
    for tx in (adamw_by_group(groups, rates, **numbers), per_group):
        state, current, update = tx.init(parameters), parameters, jax.jit(tx.update)
        for i in range(4):
            updates, state = update(jax.tree.map(lambda p, i=i: jnp.sin(p + i), parameters), state, current)
            current = optax.apply_updates(current, updates)
        results.append(current)
        leaves = jax.tree_util.tree_flatten_with_path({"opt_state": state})[0]
        states.append({jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves})
    jax.tree.map(np.testing.assert_array_equal, *results)
    np.testing.assert_array_equal(results[0]["c"], parameters["c"])
    assert not any(name.endswith(".c") for name in states[0])
    assert {current_name(name) for name in states[1]} == set(states[0])
    for name, value in states[1].items():
        np.testing.assert_array_equal(states[0][current_name(name)], value)


@pytest.mark.parametrize("pooling", ["cls", "map"])
def test_layers_are_counted_as_beits(pooling):
    """As in get_num_layer_for_vit: tokens, positions and patches 0, blocks from 1, everything after them depth + 1."""
    config = ViTConfig(
        image_size=(8, 8), patch_size=(4, 4), width=8, depth=3, num_heads=2, mlp_dim=16, num_classes=3, pooling=pooling,
        representation=5, num_registers=1, pre_norm=True, distillation_token=True, distillation_head=pooling == "cls",
    )  # fmt: skip
    model = abstract_model(config)
    groups = parameter_groups(Recipe(model="x", epochs=1, layer_decay=0.5), model)
    factors = dict(zip(to_arrays(model), jax.tree.leaves(groups), strict=True))
    for name, factor in factors.items():
        first = name.split(".")[0]
        if first == "blocks":
            layer = int(name.split(".")[1]) + 1
        elif first in (
            "class_token",
            "distillation_token",
            "registers",
            "position_embedding",
            "patch_embed",
            "pre_norm",
        ):
            layer = 0
        else:
            assert first in ("norm", "pool", "representation", "head", "distillation_head")
            layer = 4
        assert float(factor) == 0.5 ** (4 - layer), name
    assert len(set(factors.values())) == 5


def test_ranges():
    for wrong, message in [
        ({"label_smoothing": 1.0}, "label_smoothing"), ({"drop_path": -0.1}, "drop_path"), ({"ema": 1.0}, "ema"),
        ({"train": "some"}, "train is one of all, head, lora"), ({"dtype": "float16"}, "dtype is one of"),
        ({"mixup": -1.0}, "mixup"), ({"cutmix": -1.0}, "cutmix"), ({"clip_norm": -1.0}, "clip_norm"),
        ({"layer_decay": 1.1}, "layer_decay"), ({"layer_decay": 0.0}, "layer_decay"), ({"lora_rank": 0}, "lora_rank"),
        ({"lora_targets": "mlp"}, "lora_targets is one of attention, all"),
        ({"lora_alpha": 0.0}, "lora_alpha"), ({"accumulate": 0}, "accumulate"), ({"patience": -1}, "patience"),
    ]:  # fmt: skip
        with pytest.raises(InputError, match=message) as caught:
            Recipe(model="x", epochs=1, **wrong)
        assert "\n" not in str(caught.value)
