"""Rules files: arrays stored in another form than the known layout's, preprocessing and class names."""

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.create import create
from tests.weights_convert.tiny import CONFIG, timm_arrays
from vit_jax import InputError, VisionTransformer, load, load_card
from weights_convert import convert, export
from weights_convert.__main__ import main
from weights_convert.rules_file import read_rules

HEADS, SIZE = CONFIG.num_heads, CONFIG.width // CONFIG.num_heads


def rules(folder, text):
    (folder / "r.toml").write_text(text)
    return read_rules(folder / "r.toml")


def assert_same(model, expected):
    jax.tree.map(np.testing.assert_array_equal, model, expected)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_arrays_of_single_heads_are_joined_in_order(prefix, tmp_path):
    """lukemelas' names hold q, k and v apart: [heads * size, D] each."""
    model = create(VisionTransformer, CONFIG)
    own = export(model, layout="lukemelas")
    for part in "qkv":
        for kind in ("weight", "bias"):
            array = own.pop(f"transformer.blocks.0.attn.proj_{part}.{kind}")
            for head in range(HEADS):
                own[f"layer0.h{head}.{part}.{kind}"] = array[head * SIZE : (head + 1) * SIZE]
    layout = rules(
        tmp_path,
        'like = "lukemelas"\n[names]\n'
        + "\n".join(f'"layer{{i}}.h{{h}}.{p}.{{*}}" = "transformer.blocks.{{i}}.attn.proj_{p}.{{*}}"' for p in "qkv"),
    )
    file = {prefix + name: array for name, array in own.items()}
    assert_same(jax.tree.leaves(convert(file, layout=layout, num_heads=HEADS)), jax.tree.leaves(model))
    del file[f"{prefix}layer0.h0.k.bias"]
    with pytest.raises(
        InputError, match=r"attn\.proj_k\.bias needs arrays of one shape for the heads 0 to 0, not \[1\]"
    ):
        convert(file, layout=layout, num_heads=HEADS)
    with pytest.raises(InputError, match="only read checkpoints"):
        export(model, layout=layout)


@pytest.mark.parametrize("channels", [3, 1])
@pytest.mark.parametrize("order", ["hwc", "chw"])
def test_dense_patch_embeddings_and_transposed_positions(order, channels, tmp_path):
    arrays = timm_arrays(in_channels=channels)
    kernel = arrays["patch_embed.proj.weight"]  # [D, c, ph, pw]
    axes = [0, 2, 3, 1] if order == "hwc" else [0, 1, 2, 3]
    own = arrays | {
        "patch_embed.proj.weight": kernel.transpose(axes).reshape(len(kernel), -1),
        "pos_embed": arrays["pos_embed"].swapaxes(1, 2),
    }
    layout = rules(
        tmp_path,
        f'like = "timm"\n[settings]\nin_channels = {channels}\n[arrays]\n"patch_embed.proj.weight" = "linear_{order}"\n'
        '"pos_embed" = "transposed"\n',
    )
    assert_same(convert(own, layout=layout, num_heads=2), convert(arrays, num_heads=2))


def test_a_patch_that_is_no_square_needs_its_size(tmp_path):
    arrays = timm_arrays(image_size=(16, 32), patch_size=(8, 16))
    kernel = arrays["patch_embed.proj.weight"]
    own = arrays | {"patch_embed.proj.weight": kernel.reshape(len(kernel), -1)}
    text = 'like = "timm"\n[arrays]\n"patch_embed.proj.weight" = "linear_chw"\n'
    with pytest.raises(InputError, match=r"patch_embed\.proj\.weight of shape \(32, 384\) is no patch embedding"):
        convert(own, layout=rules(tmp_path, text), num_heads=2)
    layout = rules(tmp_path, text + "[settings]\npatch_size = [8, 16]\n")
    assert_same(convert(own, layout=layout, num_heads=2), convert(arrays, num_heads=2))


def test_preprocessing_and_classes_travel_into_the_saved_model(tmp_path, capsys):
    save_file(timm_arrays(), tmp_path / "own.safetensors")
    rules(
        tmp_path,
        'like = "timm"\n[settings]\nnum_heads = 2\n[preprocess]\nmean = [0.1, 0.2, 0.3]\ncrop = 0.9\n'
        '[classes]\nnames = ["cat", "dog", "cow"]\n',
    )
    command = ["convert", str(tmp_path / "own.safetensors"), "--rules", str(tmp_path / "r.toml")]
    assert main([*command, "--out", str(tmp_path / "m"), "--crop", "0.8"]) == 0
    printed = capsys.readouterr().out
    assert "  the rules file: num_heads 2, mean 0.1/0.2/0.3" in printed
    assert "crop 0.8" in printed
    preprocess = load(tmp_path / "m").config.preprocess
    assert (preprocess.mean, preprocess.crop) == ((0.1, 0.2, 0.3), 0.8)
    assert load_card(tmp_path / "m").class_names == ("cat", "dog", "cow")


def test_a_config_next_to_the_file_is_used_with_rules_too(tmp_path):
    save_file({f"own.{name}": array for name, array in timm_arrays().items()}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(
        '{"architecture": "vit_tiny_patch16_224", "pretrained_cfg": {"mean": [0.1, 0.2, 0.3]}}'
    )
    layout = rules(tmp_path, 'like = "timm"\n[settings]\nnum_heads = 2\n[names]\n"own.{*}" = "{*}"\n')
    assert convert(tmp_path, layout=layout).config.preprocess.mean == (0.1, 0.2, 0.3)


def test_two_lines_for_one_name_are_an_error_that_lists_the_arrays(tmp_path):
    arrays = timm_arrays()
    file = arrays | {"a.norm.weight": arrays["norm.weight"]}
    layout = rules(tmp_path, 'like = "timm"\n[names]\n"a.{*}" = "{*}"\n')
    with pytest.raises(InputError, match=r"a\.norm\.weight and norm\.weight both become norm\.weight"):
        convert(file, layout=layout, num_heads=2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[names]\n'a.{h}' = 'b.{h}'", "{h} at most once, on your side"),
        ("[names]\n'a.{h}.{h}' = 'b'", "{h} at most once, on your side"),
        ("[arrays]\n'a' = 'upside_down'", "[arrays] needs lines of the form"),
        ("[preprocess]\nsize = 224", "[preprocess] takes fields of Preprocess, not size"),
        ("[preprocess]\nmean = 0.5", "[preprocess] mean = 0.5 must be of type tuple"),
        ("[classes]\n0 = 'cat'", "[classes] takes names"),
    ],
)
def test_wrong_rules(text, message, tmp_path):
    with pytest.raises(InputError) as caught:
        rules(tmp_path, f"like = 'timm'\n{text}")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_form_for_an_array_that_the_file_does_not_have(tmp_path):
    layout = rules(tmp_path, 'like = "timm"\n[arrays]\n"stem" = "transposed"\n')
    with pytest.raises(InputError, match=r"\[arrays\] lists stem, which the file does not have"):
        convert(timm_arrays(), layout=layout, num_heads=2)
