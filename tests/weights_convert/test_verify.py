"""Parity reports against the original libraries, by command too."""

import sys

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import tests.reference as reference
from tests.optional import torch
from tests.weights_convert.originals import randomize
from tests.weights_convert.test_huggingface import CASES, TINY, make_original, transformers
from tests.weights_convert.test_huggingface_modern import make as make_modern
from weights_convert.__main__ import main
from weights_convert.verify import verify_checkpoint


@pytest.fixture(scope="module")
def lukemelas_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("verify") / "tiny.pth"
    torch.save({k: v.float() for k, v in reference.tiny_torch().state_dict().items()}, path)
    return path


def test_against_lukemelas_by_command(lukemelas_file, capsys):
    assert main(["verify", str(lukemelas_file), "--against", "lukemelas", "--num-heads", "3"]) == 0
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines()[:6]] == [
        "layer",
        "embedding",
        "block",
        "block",
        "block",
        "output",
    ]
    assert "all used" in out
    assert "within 1e-09" in out
    assert main(["verify", str(lukemelas_file), "--against", "lukemelas", "--num-heads", "3", "--bound", "1e-18"]) == 1
    assert "NOT within 1e-18" in capsys.readouterr().out


def test_float32_has_larger_errors_within_its_bound(lukemelas_file):
    report = verify_checkpoint(lukemelas_file, against="lukemelas", dtype="float32", num_heads=3)
    assert 1e-9 < report.max_relative_error < 2e-5


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("with_config", [True, False])
def test_against_transformers(case, with_config, tmp_path):
    make_original(case).save_pretrained(tmp_path)
    if not with_config:
        (tmp_path / "config.json").unlink()
    report = verify_checkpoint(tmp_path / "model.safetensors", against="transformers", num_heads=3)
    assert [error.layer for error in report.errors] == ["embedding", "block 0", "block 1", "output"]
    assert report.max_relative_error < 1e-9
    assert report.num_arrays > 20


# transformers computes DINOv3's angles and AIMv2's norms in float32, whatever the model's type.
MODERN = {"DINOv3": 1e-6, "BEiT": 1e-9, "BEiT classifier": 1e-9, "TIPSv2": 1e-9, "TIPSv2 SwiGLU": 1e-9, "AIMv2": 1e-6}


@pytest.mark.parametrize("case", MODERN)
@pytest.mark.parametrize("with_config", [True, False])
def test_modern_families_against_transformers(case, with_config, tmp_path):
    make_modern(case).save_pretrained(tmp_path)
    if not with_config:
        (tmp_path / "config.json").unlink()
    settings = {} if with_config or "BEiT" in case else {"image_size": (32, 32)}
    report = verify_checkpoint(tmp_path / "model.safetensors", against="transformers", num_heads=3, settings=settings)
    assert [error.layer for error in report.errors] == ["embedding", "block 0", "block 1", "output"]
    assert report.max_relative_error < MODERN[case]
    assert not [name for name in report.missing if "mask_token" not in name]


@pytest.mark.parametrize("with_config", [True, False])
@pytest.mark.parametrize("family", ["IJepa", "ViTMAE"])
def test_models_that_pool_nothing_are_compared_by_their_tokens(family, with_config, tmp_path):
    """MAE hides a random share of the patches, in a random order; verify compares it with none hidden."""
    torch.manual_seed(0)
    decoder = dict(decoder_hidden_size=16, decoder_intermediate_size=16, decoder_num_hidden_layers=1)
    config = getattr(transformers, f"{family}Config")(**TINY, **decoder, decoder_num_attention_heads=2)
    kind = "ForPreTraining" if family == "ViTMAE" else "Model"
    randomize(getattr(transformers, family + kind)(config)).save_pretrained(tmp_path)
    if not with_config:
        (tmp_path / "config.json").unlink()
    report = verify_checkpoint(tmp_path / "model.safetensors", against="transformers", num_heads=3)
    assert [error.layer for error in report.errors] == ["embedding", "block 0", "block 1", "features"]
    assert report.max_relative_error < 1e-9


def test_an_error_shows_in_the_layer_where_it_starts(tmp_path, monkeypatch):
    """A converter that confuses the norms of two blocks must not pass."""
    from weights_convert import verify as module

    make_original("ViTForImageClassification").save_pretrained(tmp_path)
    read = module.read_state

    def altered(*arguments):
        arrays = read(*arguments)
        name = next(name for name in arrays if ".1." in name and "layernorm_after.weight" in name)
        return arrays | {name: arrays[name] * 1.001}

    monkeypatch.setattr(module, "read_state", altered)
    errors = {
        e.layer: e.relative_error for e in verify_checkpoint(tmp_path, against="transformers", num_heads=3).errors
    }
    assert errors["block 0"] < 1e-9 < 1e-6 < errors["block 1"]


def test_what_cannot_be_verified(lukemelas_file, tmp_path, capsys, monkeypatch):
    assert main(["verify", str(lukemelas_file), "--against", "transformers", "--num-heads", "3"]) == 2
    assert "in the layout lukemelas: transformers cannot load it" in capsys.readouterr().err
    save_file({"a": np.ones(3, np.float32)}, tmp_path / "no.safetensors")
    assert load_file(tmp_path / "no.safetensors")
    assert main(["verify", str(tmp_path / "no.safetensors"), "--against", "lukemelas"]) == 2
    assert "none of the known layouts" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "torch", None)
    assert main(["verify", str(lukemelas_file), "--against", "lukemelas"]) == 2
    assert "verify needs torch, which is not installed" in capsys.readouterr().err


OWN_MODEL = """
import torch
from torch import nn


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 32, 8, 8)
        self.cls = nn.Parameter(torch.zeros(1, 1, 32))
        self.positions = nn.Parameter(torch.zeros(1, 5, 32))
        layer = nn.TransformerEncoderLayer(32, 4, 48, activation="{activation}", batch_first=True, norm_first=True)
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.out = nn.Linear(32, 3)

    def forward(self, images):
        x = self.patches(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], dim=1) + self.positions
        return self.out(self.body(x)[:, 0])
"""
OWN_RULES = """
like = "torch_encoder"
[names]
"patches.{*}" = "patch_embed.{*}"
"cls" = "cls_token"
"positions" = "pos_embed"
"body.layers.{*}" = "layers.{*}"
"out.{*}" = "head.{*}"
[settings]
num_heads = 4
norm_position = "pre"
activation = "relu"
"""


def test_against_a_model_of_your_own(tmp_path, capsys):
    """A user's file, rules and model agree in every layer; with another activation they do not."""
    torch.manual_seed(0)
    for name in ("relu", "gelu"):
        (tmp_path / f"{name}.py").write_text(OWN_MODEL.replace("{activation}", name))
    (tmp_path / "r.toml").write_text(OWN_RULES)
    scope = {}
    exec(compile((tmp_path / "relu.py").read_text(), "relu.py", "exec"), scope)
    torch.save(
        {"net": {f"module.{key}": value for key, value in scope["Own"]().state_dict().items()}}, tmp_path / "a.pth"
    )
    command = ["verify", str(tmp_path / "a.pth"), "--rules", str(tmp_path / "r.toml"), "--against"]
    assert main([*command, f"{tmp_path / 'relu.py'}:Own"]) == 0
    printed = capsys.readouterr().out
    assert "block 1" in printed
    assert "all used" in printed
    assert main([*command, f"{tmp_path / 'gelu.py'}:Own"]) == 1
    for wrong, message in [("none.py:Own", "none.py: no such file"), (f"{tmp_path / 'relu.py'}:None", "None() failed")]:
        assert main([*command, wrong]) == 2
        assert message in capsys.readouterr().err
