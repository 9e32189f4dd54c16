"""The parity report against the originals, by command."""

import sys

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import tests.reference as reference
from tests.weights_convert.test_huggingface import CASES, made
from weights_convert.__main__ import main
from weights_convert.verify import verify_checkpoint


@pytest.fixture(scope="module")
def lukemelas_file(tmp_path_factory):
    import torch

    path = tmp_path_factory.mktemp("verify") / "tiny.pth"
    torch.save({k: v.float() for k, v in reference.tiny_torch().state_dict().items()}, path)
    return path


def test_against_lukemelas_by_command(lukemelas_file, capsys):
    assert main(["verify", str(lukemelas_file), "--against", "lukemelas", "--num-heads", "3"]) == 0
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines()[:6]] == [
        "place",
        "embedding",
        "block",
        "block",
        "block",
        "answer",
    ]
    assert "all used" in out
    assert "within 1e-09" in out
    # With another number of heads, a model of the same arrays, it is the attention that differs.
    assert main(["verify", str(lukemelas_file), "--against", "lukemelas", "--num-heads", "3", "--bound", "1e-18"]) == 1
    assert "NOT within 1e-18" in capsys.readouterr().out


def test_float32_is_worse_and_within_its_bound(lukemelas_file):
    rough = verify_checkpoint(lukemelas_file, against="lukemelas", dtype="float32", num_heads=3)
    assert 1e-9 < rough.worst < 2e-5


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("beside", [True, False])
def test_against_transformers(case, beside, tmp_path):
    if not beside and case in ("Dinov2 SwiGLU",):
        pytest.skip("transformers rounds the SwiGLU's width itself, so its config is needed")
    made(case).save_pretrained(tmp_path)
    if not beside:
        (tmp_path / "config.json").unlink()
    report = verify_checkpoint(tmp_path / "model.safetensors", against="transformers", num_heads=3)
    assert [row.place for row in report.rows] == ["embedding", "block 0", "block 1", "answer"]
    assert report.worst < 1e-9
    assert report.used > 20


def test_a_difference_is_found_where_it_begins(tmp_path, monkeypatch):
    """A converter that mixes up two blocks' norms must not pass."""
    from weights_convert import verify as module

    made("ViTForImageClassification").save_pretrained(tmp_path)
    read = module.read_checkpoint

    def altered(path):
        arrays = dict(read(path))
        name = next(name for name in arrays if ".1." in name and "layernorm_after.weight" in name)
        return arrays | {name: arrays[name] * 1.001}

    monkeypatch.setattr(module, "read_checkpoint", altered)
    errors = {row.place: row.relative for row in verify_checkpoint(tmp_path, against="transformers", num_heads=3).rows}
    assert errors["block 0"] < 1e-9 < 1e-6 < errors["block 1"]


def test_what_cannot_be_verified(lukemelas_file, tmp_path, capsys, monkeypatch):
    assert main(["verify", str(lukemelas_file), "--against", "transformers", "--num-heads", "3"]) == 2
    assert "in the layout lukemelas: transformers does not take it" in capsys.readouterr().err
    save_file({"a": np.ones(3, np.float32)}, tmp_path / "no.safetensors")
    assert load_file(tmp_path / "no.safetensors")
    assert main(["verify", str(tmp_path / "no.safetensors"), "--against", "lukemelas"]) == 2
    assert "not a checkpoint that is understood" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "torch", None)
    assert main(["verify", str(lukemelas_file), "--against", "lukemelas"]) == 2
    assert "verify needs torch, which is not installed" in capsys.readouterr().err
