"""Sidecar configs of Hugging Face and timm, folders, shards; the export command."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import tests.reference as reference
from tests.optional import torch
from vit_jax import InputError, load, load_card
from vit_jax.preprocess import Preprocess
from weights_convert import convert, export
from weights_convert.__main__ import main
from weights_convert.sidecar import read_sidecar

transformers = pytest.importorskip("transformers")

SMALL = dict(hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, patch_size=8)


@pytest.fixture
def vit(tmp_path):
    """Save a small rectangular Hugging Face ViT with its processor config; return the folder and the model."""
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        **SMALL, image_size=(16, 32), num_labels=3, id2label={0: "cat", 1: "dog", 2: "cow"}, hidden_act="gelu_new",
        layer_norm_eps=1e-3,
    )  # fmt: skip
    model = transformers.ViTForImageClassification(config).eval()
    model.save_pretrained(tmp_path / "vit")
    processor = dict(
        do_normalize=True, image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6], resample=3, size={"shortest_edge": 40},
        do_center_crop=True, crop_size={"height": 32, "width": 32},
    )  # fmt: skip
    (tmp_path / "vit" / "preprocessor_config.json").write_text(json.dumps(processor))
    return tmp_path / "vit", model


def run_original(model, x):
    with torch.no_grad():
        return model(pixel_values=torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).logits.numpy()


def test_a_folder_of_hugging_face(vit, tmp_path, capsys):
    folder, original = vit
    assert main(["convert", str(folder), "--out", str(tmp_path / "m")]) == 0
    printed = capsys.readouterr().out
    assert "layout: hf_vit" in printed
    assert "config.json and preprocessor_config.json: activation gelu_tanh, norm_eps 0.001, num_heads 4" in printed
    model, card = load(tmp_path / "m"), load_card(tmp_path / "m")
    assert card.class_names == ("cat", "dog", "cow")
    config = model.config
    assert config.image_size == (16, 32)
    assert config.preprocess == Preprocess((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "bicubic", 0.8, centre="floor")
    x = reference.images(0, 2, 16, 32).astype(np.float32)
    np.testing.assert_allclose(model(x), run_original(original, x), atol=2e-5)


def test_a_sharded_folder(vit, tmp_path):
    folder, original = vit
    original.save_pretrained(tmp_path / "sharded", max_shard_size="40KB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    x = reference.images(0, 2, 16, 32).astype(np.float32)
    np.testing.assert_array_equal(convert(tmp_path / "sharded")(x), convert(folder)(x))
    index = tmp_path / "sharded" / "model.safetensors.index.json"
    stored = json.loads(index.read_text())
    stored["weight_map"]["vit.layernorm.weight"] = "../elsewhere.safetensors"
    index.write_text(json.dumps(stored))
    with pytest.raises(InputError, match="must be in the same folder"):
        convert(tmp_path / "sharded")
    next((tmp_path / "sharded").glob("*.safetensors")).unlink()
    stored["weight_map"]["vit.layernorm.weight"] = stored["weight_map"]["vit.layernorm.bias"]
    index.write_text(json.dumps(stored))
    with pytest.raises(InputError, match="no such file"):
        convert(tmp_path / "sharded")


def test_without_a_sidecar_config_the_defaults_are_printed(vit, tmp_path, capsys):
    folder, _ = vit
    (tmp_path / "bare").mkdir()
    (folder / "model.safetensors").rename(tmp_path / "bare" / "weights.safetensors")
    command = ["inspect", str(tmp_path / "bare" / "weights.safetensors"), "--image-size", "16x32"]
    assert main([*command, "--num-heads", "4"]) == 0
    printed = capsys.readouterr().out
    assert "the layout's default: activation gelu" in printed
    assert "as requested: num_heads 4" in printed


def timm_folder(folder, config):
    """Write a small model in timm's names with a config.json; return the folder."""
    folder.mkdir()
    arrays = export(convert(reference.state_arrays(reference.tiny_torch()), num_heads=3), layout="timm")
    save_file({name: array.astype(np.float32) for name, array in arrays.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_timms_config(tmp_path):
    pretrained = dict(
        input_size=[3, 32, 32], mean=[0.4, 0.4, 0.4], std=[0.2, 0.2, 0.2], interpolation="bicubic", crop_pct=0.9
    )
    config = dict(architecture="vit_tiny_patch8_clip_quickgelu_32", pretrained_cfg=pretrained)
    model = convert(timm_folder(tmp_path / "a", config), num_heads=3)
    assert model.config.activation == "quick_gelu"
    assert model.config.posemb_resize == "bicubic_antialias"
    assert model.config.preprocess == Preprocess((0.4,) * 3, (0.2,) * 3, "bicubic", 0.9)
    squashed = dict(config, pretrained_cfg=dict(pretrained, crop_mode="squash"))
    preprocess = convert(timm_folder(tmp_path / "b", squashed), num_heads=3).config.preprocess
    assert preprocess == Preprocess((0.4,) * 3, (0.2,) * 3, "bicubic", 0.9, squash=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        (json.dumps({"model_type": "vit", "num_attention_heads": "many"}), "num_attention_heads is a number, not"),
        (
            json.dumps({"model_type": "vit", "num_attention_heads": 2.5}),
            "num_attention_heads is a whole number above 0",
        ),
        (json.dumps({"model_type": "vit", "num_attention_heads": "²"}), "num_attention_heads is a number, not"),
        (json.dumps({"model_type": "vit", "hidden_act": "mish"}), "unknown hidden_act 'mish': one of gelu"),
    ],
)
def test_malformed_configs(tmp_path, text, message):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError, match=message):
        read_sidecar(tmp_path)


def test_export(vit, tmp_path, capsys):
    folder, _ = vit
    assert main(["convert", str(folder), "--out", str(tmp_path / "m")]) == 0
    out = tmp_path / "back.safetensors"
    assert main(["export", str(tmp_path / "m"), "--layout", "hf_vit", "--out", str(out)]) == 0
    expected = load_file(folder / "model.safetensors")
    assert all(np.array_equal(array, expected[name]) for name, array in load_file(out).items())
    assert set(load_file(out)) == set(expected)
    capsys.readouterr()
    for flags, message in [
        (["--layout", "hf_vit", "--out", "back.bin"], "give a name that ends in .safetensors or .pth"),
        (["--layout", "jax", "--out", "b.safetensors"], "unknown layout 'jax'"),
        (["--layout", "hf_siglip", "--out", str(out)], "has no place for class_token"),
        (["--layout", "timm", "--out", "nowhere/b.safetensors"], "its folder does not exist"),
    ]:
        assert main(["export", str(tmp_path / "m"), *flags]) == 2
        assert message in capsys.readouterr().err
