"""What arrays cannot hold is stated by a config, a rules file or the caller, or asked for; and who stated it is printed."""

from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.create import create
from tests.weights_convert.tiny import CONFIG, timm_arrays
from vit_jax import InputError, VisionTransformer, load, load_card
from weights_convert import convert, export
from weights_convert.__main__ import main
from weights_convert.model_types import PUBLISHED_HEADS


@pytest.fixture
def file(tmp_path):
    save_file(timm_arrays(), tmp_path / "tiny.safetensors")
    return str(tmp_path / "tiny.safetensors")


def test_the_heads_of_an_unpublished_shape_are_asked_for(file, tmp_path, capsys):
    assert main(["convert", file, "--out", str(tmp_path / "m")]) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert "arrays do not show the number of heads, and width 32, depth 1 is no published shape" in message
    assert "--num-heads" in message
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(("shape", "heads"), [((1280, 32), 16), ((1152, 27), 16), ((768, 8), 8), ((192, 12), 3)])
def test_published_shapes_have_their_own_heads(shape, heads):
    """Not width / 64: ViT-H has heads of width 80, SigLIP's so400m of 72, timm's first small one of 96."""
    assert PUBLISHED_HEADS[shape] == heads


def test_flags_overrule_and_the_output_says_who_stated_what(file, tmp_path, capsys):
    flags = ["--num-heads", "4", "--activation", "quick_gelu", "--pooling", "gap", "--mean", "0.4", "0.5", "0.6"]
    flags += ["--std", "0.2", "0.2", "0.3", "--interpolation", "bicubic", "--crop", "0.875", "--image-size", "16"]
    assert main(["convert", file, "--out", str(tmp_path / "m"), *flags]) == 0
    printed = capsys.readouterr().out
    stated = "num_heads 4, activation quick_gelu, pooling gap, image_size 16, mean 0.4/0.5/0.6, std 0.2/0.2/0.3, "
    (line,) = [line for line in printed.splitlines() if line.startswith("  as requested: ")]
    assert set(stated.strip(", ").split(", ")) <= set(line.removeprefix("  as requested: ").split(", "))
    config = load(tmp_path / "m").config
    assert (config.num_heads, config.activation, config.pooling) == (4, "quick_gelu", "gap")
    preprocess = config.preprocess
    assert (preprocess.mean, preprocess.std) == ((0.4, 0.5, 0.6), (0.2, 0.2, 0.3))
    assert (preprocess.kernel, preprocess.crop) == ("bicubic", 0.875)


def test_what_nothing_states_is_printed_as_assumed(file, capsys):
    assert main(["inspect", file, "--num-heads", "2"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "assumed, since nothing states it" in line]
    assert "image_size 16, mean 0.5, std 0.5, kernel bilinear, crop None" in line


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--crop", "1.5"], "'1.5' is not a number in (0, 1], nor none"),
        (["--mean", "0.5"], "mean"),
        (["--activation", "tanh"], "'tanh' is not one of"),
        (["--num-heads", "3"], "width 32 is not divisible by num_heads 3"),
    ],
)
def test_wrong_statements_are_one_line(flags, message, file, tmp_path, capsys):
    command = ["convert", file, "--out", str(tmp_path / "m"), "--num-heads", "2", *flags]
    try:
        code = main(command)
    except SystemExit as error:  # argparse's own
        code = error.code
    assert code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("converted")]
    assert len(lines) == 1
    assert message in lines[0]


def test_integers_are_no_weights(tmp_path):
    arrays = timm_arrays()
    arrays["head.weight"] = np.ones_like(arrays["head.weight"], np.int8)
    with pytest.raises(InputError, match=r"head\.weight holds int8 values, and weights need a float type"):
        convert(arrays, num_heads=2)


def test_a_told_size_beats_the_square():
    """16 positions of 8x8 patches: 4x4 unless someone says 2x8."""
    arrays = timm_arrays(image_size=(16, 64))
    assert convert(arrays, num_heads=2, image_size=(16, 64)).config.grid == (2, 8)
    assert convert(arrays, num_heads=2).config.grid == (4, 4)


def test_class_names_travel_into_the_saved_model(file, tmp_path, capsys):
    (tmp_path / "names.txt").write_text("cat\ndog\ncafé au lait\n", encoding="utf-8")
    command = ["convert", file, "--out", str(tmp_path / "m"), "--num-heads", "2"]
    assert main([*command, "--class-names", str(tmp_path / "names.txt")]) == 0
    assert "classes: cat, dog, café au lait" in capsys.readouterr().out
    assert load_card(tmp_path / "m").class_names == ("cat", "dog", "café au lait")
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    assert main([*command, "--force", "--class-names", str(tmp_path / "names.txt")]) == 2
    assert "2 class names for 3 classes" in capsys.readouterr().err
    for text in ("", "cat\n\ndog\n", "cat\ncat\ndog\n"):
        (tmp_path / "names.txt").write_text(text)
        assert main([*command, "--force", "--class-names", str(tmp_path / "names.txt")]) == 2
        assert "class names are one in each line" in capsys.readouterr().err


def test_a_model_of_grey_pictures_has_one_mean():
    """torchvision's mean and std are of RGB: nothing states those of one channel."""
    model = convert(
        export(create(VisionTransformer, replace(CONFIG, in_channels=1)), layout="torchvision"), num_heads=2
    )
    np.testing.assert_allclose(model.config.preprocess.mean, [0.449], atol=1e-3)
    assert model.config.preprocess.crop == 0.875


def test_in_channels_adapts_a_model_of_rgb(file, tmp_path):
    assert main(["convert", file, "--num-heads", "2", "--in-channels", "1", "--out", str(tmp_path / "m")]) == 0
    rgb, grey = convert(file, num_heads=2), load(tmp_path / "m")
    np.testing.assert_allclose(grey.patch_embed.kernel[..., 0, :], rgb.patch_embed.kernel[...].sum(axis=2), rtol=1e-5)
    assert grey.config.preprocess.mean == (0.5,)


def test_a_new_head_has_the_requested_names_and_none_of_the_file(file, tmp_path, capsys):
    (tmp_path / "names.txt").write_text("red\nblue\n")
    command = ["convert", file, "--out", str(tmp_path / "m"), "--num-heads", "2", "--num-classes", "2"]
    assert main([*command, "--class-names", str(tmp_path / "names.txt")]) == 0
    assert load_card(tmp_path / "m").class_names == ("red", "blue")
    (tmp_path / "config.json").write_text('{"architecture": "vit_tiny_patch16_224", "label_names": ["a", "b", "c"]}')
    assert main([*command, "--force"]) == 0
    assert "class names left out: 3 names (a, ...) for 2 classes" in capsys.readouterr().out
    assert load_card(tmp_path / "m").class_names == ()


def test_a_config_of_another_family_is_reported(file, tmp_path, capsys):
    (tmp_path / "config.json").write_text('{"model_type": "vit", "hidden_act": "relu"}')
    assert main(["inspect", file, "--num-heads", "2"]) == 0
    printed = capsys.readouterr().out
    assert "config.json: of another family, not used" in printed
    assert "the layout's default: activation gelu" in printed
