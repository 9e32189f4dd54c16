"""A recipe's settings: each has a flag, is off unless asked for, is checked, and is read back from older runs too."""

import argparse
import json
from dataclasses import fields, replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import finetune
from experiments.common.flags import (
    AUGMENT_OVERRIDES,
    MORE_OVERRIDES,
    OVERRIDES,
    add_recipe_flags,
    changed_flags,
    override_recipe,
)
from vit_jax import InputError, ViTConfig
from vit_jax.checkpoint import abstract_model, to_arrays
from vit_jax.data.augment.transforms import Augment
from vit_jax.train.optim import make_optimizer, make_schedule, parameter_groups
from vit_jax.train.recipe import RECIPES, Recipe, recipe_from_dict

# Another value than the default for every setting beyond the plain recipe.
OTHER = {
    "drop_path": "0.1", "label_smoothing": "0.1", "mixup": "0.8", "cutmix": "1", "train": "head", "lora_rank": "4",
    "lora_alpha": "8", "lora_targets": "all", "layer_decay": "0.75", "clip_norm": "1", "ema": "0.99", "accumulate": "2", "dtype": "bfloat16",
    "patience": "3", "rand_ops": "2", "rand_magnitude": "5",
}  # fmt: skip


def parsed(*flags):
    parser = argparse.ArgumentParser(allow_abbrev=False)
    add_recipe_flags(parser)
    return parser.parse_args(flags)


def test_every_setting_has_a_flag_and_no_flag_is_without_one():
    assert {f.name for f in fields(Recipe)} == {*OVERRIDES, *MORE_OVERRIDES, "augment"}
    assert {f.name for f in fields(Augment)} == set(AUGMENT_OVERRIDES)
    assert set(OTHER) >= set(MORE_OVERRIDES)


@pytest.mark.parametrize("name", OTHER)
def test_a_resumed_run_keeps_each_of_them(name):
    recipe, flag = RECIPES["pets"], "--" + name.replace("_", "-")
    if name.startswith("lora"):
        recipe = replace(recipe, train="lora")
    args = parsed(flag, OTHER[name])
    changed = override_recipe(recipe, args)
    assert changed_flags(recipe, args) == [flag]
    assert changed_flags(changed, args) == []
    assert recipe_from_dict(json.loads(json.dumps(changed.as_dict()))) == changed != recipe


def test_runs_recorded_before_them_read_back():
    """A recipe as programs wrote it when there was nothing beyond the plain one."""
    text = """{"model": "B_16_imagenet1k", "epochs": 10, "image_size": [384, 384], "batch_size": 16,
        "learning_rate": 1e-05, "schedule": "constant", "warmup_epochs": 0.0, "beta1": 0.9, "beta2": 0.999, "eps": 1e-08,
        "weight_decay": 0.01, "dropout": null, "augment": {"crop_scale": [0.08, 1.0], "crop_ratio": [0.75,
        1.3333333333333333], "degrees": 30.0, "flip": 0.5, "brightness": 0.5, "contrast": 0.5, "saturation": 0.5,
        "hue": 0.5}, "seed": 0}"""
    assert recipe_from_dict(json.loads(text)) == RECIPES["pets"]


def test_a_wrong_setting_is_one_line_and_leaves_no_folder(tmp_path, capsys):
    out = tmp_path / "run"
    for flags, told in [
        (["--accumulate", "5"], "accumulate 5 does not divide the batch size 64"),
        (["--layer-decay", "0.5", "--train", "lora"], "layer_decay is for training all layers"),
        (["--lora-rank", "4"], "--lora-rank does nothing with --train all; give --train lora"),
        (["--layer-decay", "nan"], "layer_decay in (0, 1]"),
        (["--patience", "-1"], "patience are at least 0"),
        (["--rand-ops", "2", "--rand-magnitude", "31"], "rand_magnitude from 0 to 30"),
    ]:
        assert finetune.main(["--data", "digits", "--out", str(out), *flags]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert told in line
    assert not out.exists()


def test_the_plain_recipe_is_optaxs_adamw_to_the_bit():
    recipe = Recipe(model="x", epochs=2, schedule="cosine", warmup_epochs=1.0, weight_decay=0.02, beta2=0.99, eps=1e-6)
    schedule = make_schedule(recipe, 3)
    rng = np.random.default_rng(0)
    parameters = {name: jnp.asarray(rng.normal(size=(3, 4)), jnp.float32) for name in "ab"}
    found = []
    for tx in (make_optimizer(recipe, schedule, parameters), optax.adamw(schedule, 0.9, 0.99, 1e-6, weight_decay=0.02)):
        state, now, update = tx.init(parameters), parameters, jax.jit(tx.update)
        for i in range(4):
            updates, state = update(jax.tree.map(lambda p, i=i: jnp.sin(p + i), parameters), state, now)
            now = optax.apply_updates(now, updates)
        found.append((now, state))
    assert jax.tree.structure(found[0]) == jax.tree.structure(found[1])
    jax.tree.map(np.testing.assert_array_equal, *found)


@pytest.mark.parametrize("pooling", ["cls", "map"])
def test_layers_are_counted_as_beits(pooling):
    """Its get_num_layer_for_vit: tokens, positions and patches 0, blocks from 1, what comes after them depth + 1."""
    config = ViTConfig(
        image_size=(8, 8), patch_size=(4, 4), width=8, depth=3, num_heads=2, mlp_dim=16, num_classes=3, pooling=pooling,
        representation=5, num_registers=1, pre_norm=True, distillation_token=True, distillation_head=pooling == "cls",
    )  # fmt: skip
    model = abstract_model(config)
    groups = parameter_groups(Recipe(model="x", epochs=1, layer_decay=0.5), model)
    found = dict(zip(to_arrays(model), jax.tree.leaves(groups), strict=True))
    for name, factor in found.items():
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
    assert len(set(found.values())) == 5


def test_ranges():
    for wrong, told in [
        ({"label_smoothing": 1.0}, "label_smoothing"), ({"drop_path": -0.1}, "drop_path"), ({"ema": 1.0}, "ema"),
        ({"train": "some"}, "train is one of all, head, lora"), ({"dtype": "float16"}, "dtype one of"),
        ({"mixup": -1.0}, "mixup"), ({"cutmix": -1.0}, "cutmix"), ({"clip_norm": -1.0}, "clip_norm"),
        ({"layer_decay": 1.1}, "layer_decay"), ({"layer_decay": 0.0}, "layer_decay"), ({"lora_rank": 0}, "lora_rank"),
        ({"lora_targets": "mlp"}, "lora_targets is one of attention, all"),
        ({"lora_alpha": 0.0}, "lora_alpha"), ({"accumulate": 0}, "accumulate"), ({"patience": -1}, "patience"),
    ]:  # fmt: skip
        with pytest.raises(InputError, match=told) as caught:
            Recipe(model="x", epochs=1, **wrong)
        assert "\n" not in str(caught.value)
