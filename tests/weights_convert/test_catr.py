"""CATR's files, through a small model of its structure and the command line; misfits are listed."""

import json

import numpy as np
import pytest

import caption
import tests.reference as reference
import vit_jax
from tests.optional import torch
from vit_jax import InputError
from weights_convert import convert, export, load_pretrained
from weights_convert.__main__ import main

pytestmark = pytest.mark.parity

NARROW = {30522: 130, 2048: 32, 1024: 16, 768: 24, 512: 16, 256: 8, 128: 12, 64: 4}


def small_arrays():
    """Return CATR's names with the arrays of a model with fewer words, channels and layers."""
    shapes = json.loads((reference.GOLDEN / "catr_state_dict.json").read_text())
    deep = tuple(f".layer3.{i}." for i in range(2, 23))
    arrays = {}
    for name, shape in shapes.items():
        if not any(part in name for part in deep):
            arrays[name] = reference.golden_array(name, tuple(NARROW.get(n, n) for n in shape)).astype(np.float32)
    return narrow_stages(arrays)


def narrow_stages(arrays):
    """Return the arrays with stages of width 4, 4, 8, 16 inside the blocks and four times that outside."""
    widths, arrays = (4, 4, 8, 16), dict(arrays)
    for name, array in arrays.items():
        if ".body.layer" not in name:
            continue
        stage, block, rest = name.split(".body.layer")[1].split(".", 2)
        stage, first = int(stage) - 1, block == "0"
        inner, outer = widths[stage], 4 * widths[stage]
        entering = (4 * widths[stage - 1] if stage else 4) if first else outer
        shape = {
            "conv1.weight": (inner, entering, 1, 1),
            "conv2.weight": (inner, inner, 3, 3),
            "conv3.weight": (outer, inner, 1, 1),
            "downsample.0.weight": (outer, entering, 1, 1),
        }.get(rest, (outer,) if rest.startswith(("bn3", "downsample")) else (inner,))
        arrays[name] = reference.golden_array(name, shape).astype(array.dtype)
    arrays["input_proj.weight"] = reference.golden_array("input_proj.weight", (8, 64, 1, 1)).astype(np.float32)
    return arrays


@pytest.fixture(scope="module")
def arrays():
    return small_arrays()


@pytest.fixture(scope="module")
def file(arrays, tmp_path_factory):
    """Write a file like the releases: {"model": ...} next to the optimizer state, in torch's legacy format."""
    path = tmp_path_factory.mktemp("catr") / "weights.pth"
    state = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
    torch.save({"model": state, "optimizer": {}, "epoch": 29}, path, _use_new_zipfile_serialization=False)
    return path


def test_the_architecture_from_the_arrays(arrays):
    config = convert(arrays, num_heads=2).config
    assert config.encoder == caption.ResNetConfig((3, 4, 2, 3), (4, 4, 8, 16), stem_width=4)
    assert (config.width, config.num_heads, config.mlp_dim, config.vocab_size) == (8, 2, 32, 130)
    assert (config.encoder_layers, config.decoder_layers, config.head_width, config.max_positions) == (6, 6, 16, 12)


def test_a_file_there_and_back_is_exact(file, arrays, tmp_path):
    model = convert(file, num_heads=2)
    assert isinstance(model, caption.CaptionTransformer)
    back = export(model, layout="catr")
    assert set(back) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(back[name], array, strict=True)
    caption.save(model, tmp_path / "m")
    loaded = load_pretrained(tmp_path / "m")
    for name, array in export(loaded, layout="catr").items():
        np.testing.assert_array_equal(array, arrays[name], strict=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("transformer.decoder.norm.bias"), "1 missing: transformer.decoder.norm.bias"),
        (lambda a: a.pop("backbone.0.body.layer3.1.bn2.running_var"), "missing: .*layer3.1.bn2.running_var"),
        (lambda a: a.update(extra=np.zeros(2)), "1 left over: extra"),
        (lambda a: a.update({"mlp.layers.1.bias": np.zeros(9)}), r"mlp.layers.1.bias is \(9,\), not \(16,\)"),
        (lambda a: a.pop("input_proj.weight"), "1 missing: input_proj.weight"),
        (lambda a: a.pop("mlp.layers.0.weight"), "a checkpoint in the layout catr that lacks mlp.layers.0.weight"),
    ],
)
def test_misfits_are_listed(arrays, change, message):
    changed = dict(arrays)
    change(changed)
    with pytest.raises(InputError, match=message):
        convert(changed, num_heads=2)


def test_options_that_a_caption_model_lacks(arrays):
    for wrong in (dict(image_size=64), dict(num_classes=3)):
        with pytest.raises(InputError, match="a caption model takes RGB images of any size"):
            convert(arrays, num_heads=2, **wrong)
    with pytest.raises(InputError, match=r"another architecture than catr: encoder is .*; width is 8, not 256"):
        convert(arrays, name="catr")
    with pytest.raises(InputError, match=r"unknown architecture 'B_16': one of catr"):
        convert(arrays, name="B_16")


def test_a_layout_of_another_model_type(arrays):
    model = convert(arrays, num_heads=2)
    with pytest.raises(InputError, match="the layout timm is for image models, and this model is not one"):
        export(model, layout="timm")
    vit = convert(reference.state_arrays(reference.tiny_torch().float()), num_heads=3)
    with pytest.raises(InputError, match="the layout catr is for caption models, and this model is not one"):
        export(vit, layout="catr")


def test_the_commands(file, arrays, tmp_path, capsys):
    out, back = tmp_path / "m", tmp_path / "back.safetensors"
    assert main(["inspect", str(file), "--num-heads", "2"]) == 0
    text = capsys.readouterr().out
    assert "layout: catr (CATR, the caption transformer)" in text
    assert "ResNet of 3+4+2+3 blocks, 6 + 6 layers, width 8, 2 heads, MLP 32, 130 words, 12 positions" in text
    assert main(["convert", str(file), "--out", str(out), "--num-heads", "2"]) == 0
    assert caption.load_card(out).provenance == {"source": "weights.pth", "layout": "catr"}
    assert main(["export", str(out), "--layout", "catr", "--out", str(back)]) == 0
    assert set(convert(back, num_heads=2).config.encoder.stage_depths) == {2, 3, 4}
    assert main(["export", str(out), "--layout", "catr", "--out", str(tmp_path / "back.pth")]) == 0
    state = torch.load(tmp_path / "back.pth", weights_only=True)["model"]  # the original loads this key
    assert set(state) == set(arrays)
    assert all(np.array_equal(state[name].numpy(), arrays[name]) for name in arrays)
    capsys.readouterr()
    assert main(["export", str(out), "--layout", "google", "--out", str(back)]) == 2
    assert "is for image models" in capsys.readouterr().err
    with pytest.raises(InputError, match="format is 'caption/1', not 'vit_jax/1'"):
        vit_jax.load(out)
