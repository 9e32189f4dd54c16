"""The ready rule files of docs/families.md: each reads a file under its left sides' names back, array for array."""

import re
import tomllib
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.create import create
from vit_jax import VisionTransformer, ViTConfig
from weights_convert import convert, export
from weights_convert.layouts import LAYOUTS
from weights_convert.rules_file import read_rules

TEXT = Path("docs/families.md").read_text()
RULES = re.findall(r"```toml\n(.*?)```", TEXT, flags=re.DOTALL)
HEADS = 4
CONFIG = ViTConfig(
    image_size=(16, 16), patch_size=(4, 4), width=32, depth=2, num_heads=HEADS, mlp_dim=48, num_classes=3
)  # fmt: skip
# What the original of a layout has apart from the defaults of ViTConfig.
FAMILIES = {"vit_pytorch": dict(qkv_bias=False, patch_norms=True, attention_width=64), "torch_encoder": {}}
NO_CLASS = dict(class_token=False, pooling="gap")


def invert(name, names):
    """Return a known layout's name under the left side of the first line that produces it."""
    for own, its in names.items():
        order = re.findall(r"\{[i*]\}", its)
        pattern = "".join(
            {"{i}": r"(\d+)", "{*}": r"(.+)"}.get(piece, re.escape(piece)) for piece in re.split(r"(\{[i*]\})", its)
        )
        if match := re.fullmatch(pattern, name):
            values = dict(zip(order, match.groups(), strict=True))
            return re.sub(r"\{[i*]\}", lambda placeholder, values=values: values[placeholder[0]], own)
    return name


def store(own_name, array, forms):
    """Return {name: array} as a file holds it: one array for each head, flattened or transposed."""
    form = forms.get(own_name)
    if form == "transposed":
        return {own_name: array.swapaxes(-1, -2)}
    if form is not None:
        axes = (0, 1, 2, 3) if form == "linear_chw" else (0, 2, 3, 1)
        return {own_name: array.transpose(axes).reshape(len(array), -1)}
    if "{h}" in own_name:
        return {own_name.replace("{h}", str(h)): part for h, part in enumerate(np.split(array, HEADS))}
    return {own_name: array}


@pytest.mark.parametrize("text", RULES)
def test_a_file_under_these_names_is_read_array_for_array(text, tmp_path):
    (tmp_path / "r.toml").write_text(text)
    stored, layout = tomllib.loads(text), read_rules(tmp_path / "r.toml")
    settings = {**stored["settings"], **FAMILIES.get(stored["like"], {})}
    settings |= {} if settings.get("pooling") != "gap" else NO_CLASS
    settings |= {"in_channels": 1} if len(stored.get("preprocess", {}).get("mean", "rgb")) == 1 else {}
    model = create(VisionTransformer, replace(CONFIG, **settings))
    arrays = export(model, layout=stored["like"])
    own = {
        name: part
        for key, array in arrays.items()
        for name, part in store(invert(key, stored.get("names", {})), array, stored.get("arrays", {})).items()
    }
    if stored.get("names") or stored.get("arrays"):
        assert set(own) != set(arrays) or any(own[name].shape != arrays[name].shape for name in own)
    converted = convert(own, layout=layout)
    jax.tree.map(np.testing.assert_array_equal, jax.tree.leaves(converted), jax.tree.leaves(model))
    assert converted.config.num_heads == HEADS
    for name in ("norm_position", "activation", "pooling"):
        assert getattr(converted.config, name) == getattr(model.config, name)
    assert LAYOUTS[stored["like"]].name in TEXT


def test_there_are_ten():
    assert len(RULES) == 10
