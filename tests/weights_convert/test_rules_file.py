"""A user's own array names, through a rules file."""

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import tests.reference as reference
from vit_jax import InputError, load
from weights_convert import convert
from weights_convert.__main__ import main
from weights_convert.rules_file import read_rules

RULES = """
like = "vit_pytorch"
unused = ["ema_.*"]
[names]
"stem.{*}" = "to_patch_embedding.{*}"
"layer{i}.mix.{*}" = "transformer.layers.{i}.0.{*}"
"layer{i}.mlp.{*}" = "transformer.layers.{i}.1.net.{*}"
"positions" = "pos_embedding"
[settings]
num_heads = 4
"""
OWN_NAMES = {
    "to_patch_embedding.": "stem.",
    "pos_embedding": "positions",
    **{f"transformer.layers.{i}.0.": f"layer{i}.mix." for i in range(3)},
    **{f"transformer.layers.{i}.1.net.": f"layer{i}.mlp." for i in range(3)},
}


def rename_arrays(arrays):
    def rename(name):
        start = next((start for start in OWN_NAMES if name.startswith(start)), None)
        return name if start is None else OWN_NAMES[start] + name.removeprefix(start)

    return {rename(name): array.astype(np.float32) for name, array in arrays.items()}


def test_there_and_back_by_command(tmp_path, capsys):
    arrays = reference.golden_parameters("vit_pytorch", "ViT cls")
    own = rename_arrays(arrays)
    assert set(own) != set(arrays)
    save_file(own | {"ema_decay": np.ones(1, np.float32)}, tmp_path / "own.safetensors")
    (tmp_path / "rules.toml").write_text(RULES)
    rules = ["--rules", str(tmp_path / "rules.toml")]
    assert main(["inspect", str(tmp_path / "own.safetensors"), *rules]) == 0
    assert "under your own names" in capsys.readouterr().out
    assert main(["convert", str(tmp_path / "own.safetensors"), *rules, "--out", str(tmp_path / "m")]) == 0
    model = load(tmp_path / "m")
    assert model.config.num_heads == 4
    jax.tree.map(np.testing.assert_array_equal, jax.tree.leaves(model), jax.tree.leaves(convert(arrays, num_heads=4)))
    assert main(["export", str(tmp_path / "m"), *rules, "--out", str(tmp_path / "back.safetensors")]) == 0
    back = load_file(tmp_path / "back.safetensors")
    assert set(back) == set(own)
    assert all(np.array_equal(back[name], own[name]) for name in own)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("like = 'tim'", "like is 'tim': one of lukemelas"),
        ("like = 'timm'\nname = 1", "unknown name: one of like"),
        ("like = 'timm'\n[names]\n'a.{i}' = 'b'", "needs each of {i} and {*} once on both sides"),
        ("like = 'timm'\n[names]\n'a' = 1", '[names] needs lines of the form "your name" = "its name"'),
        ("like = 'timm'\n[settings]\nheads = 3", "[settings] takes fields of ViTConfig, not heads"),
        ("like = 'timm'\nunused = ['(']", "unused must be a list of regular expressions"),
        ("like = ", "not a rules file in TOML"),
    ],
)
def test_a_wrong_rules_file_is_reported_in_one_line(text, message, tmp_path):
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(InputError) as caught:
        read_rules(tmp_path / "r.toml")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_settings_of_another_type_are_reported(tmp_path):
    (tmp_path / "r.toml").write_text("like = 'vit_pytorch'\n[settings]\nnum_heads = 'four'")
    with pytest.raises(InputError, match="num_heads = 'four' must be of type int"):
        read_rules(tmp_path / "r.toml")
