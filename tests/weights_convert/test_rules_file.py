"""A user's own names, by a rule file."""

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
"places" = "pos_embedding"
[settings]
num_heads = 4
"""
MINE = {
    "to_patch_embedding.": "stem.",
    "pos_embedding": "places",
    **{f"transformer.layers.{i}.0.": f"layer{i}.mix." for i in range(3)},
    **{f"transformer.layers.{i}.1.net.": f"layer{i}.mlp." for i in range(3)},
}


def renamed(arrays):
    def mine(name):
        start = next((start for start in MINE if name.startswith(start)), None)
        return name if start is None else MINE[start] + name.removeprefix(start)

    return {mine(name): array.astype(np.float32) for name, array in arrays.items()}


def test_there_and_back_by_command(tmp_path, capsys):
    arrays = reference.golden_parameters("vit_pytorch", "ViT cls")
    mine = renamed(arrays)
    assert set(mine) != set(arrays)
    save_file(mine | {"ema_decay": np.ones(1, np.float32)}, tmp_path / "mine.safetensors")
    (tmp_path / "rules.toml").write_text(RULES)
    rules = ["--rules", str(tmp_path / "rules.toml")]
    assert main(["inspect", str(tmp_path / "mine.safetensors"), *rules]) == 0
    assert "under names of one's own" in capsys.readouterr().out
    assert main(["convert", str(tmp_path / "mine.safetensors"), *rules, "--out", str(tmp_path / "m")]) == 0
    model = load(tmp_path / "m")
    assert model.config.num_heads == 4
    jax.tree.map(np.testing.assert_array_equal, jax.tree.leaves(model), jax.tree.leaves(convert(arrays, num_heads=4)))
    assert main(["export", str(tmp_path / "m"), *rules, "--out", str(tmp_path / "back.safetensors")]) == 0
    back = load_file(tmp_path / "back.safetensors")
    assert set(back) == set(mine)
    assert all(np.array_equal(back[name], mine[name]) for name in mine)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("like = 'tim'", "like is 'tim': one of lukemelas"),
        ("like = 'timm'\nname = 1", "unknown name: one of like"),
        ("like = 'timm'\n[names]\n'a.{i}' = 'b'", "needs each of {i} and {*} once on both sides"),
        ("like = 'timm'\n[names]\n'a' = 1", '[names] has lines of the form "mine" = "its"'),
        ("like = 'timm'\n[settings]\nheads = 3", "[settings] has fields of ViTConfig, not heads"),
        ("like = 'timm'\nunused = ['(']", "unused is a list of regular expressions"),
        ("like = ", "not a rule file in TOML"),
    ],
)
def test_a_wrong_rule_file_is_told_in_one_line(text, message, tmp_path):
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(InputError) as told:
        read_rules(tmp_path / "r.toml")
    assert message in str(told.value)
    assert "\n" not in str(told.value)


def test_settings_of_another_type_are_told(tmp_path):
    (tmp_path / "r.toml").write_text("like = 'vit_pytorch'\n[settings]\nnum_heads = 'four'")
    with pytest.raises(InputError, match="num_heads = 'four' is no int"):
        read_rules(tmp_path / "r.toml")
