"""Conversion by rules is exact and complete, or an error that lists what is wrong; the command line."""

import subprocess
import sys
from typing import get_args

import jax
import numpy as np
import pytest

import tests.reference as reference
from tests.create import create
from tests.optional import torch
from tests.weights_convert.tiny import CONFIG
from vit_jax import CONFIGS, InputError, VisionTransformer, load, load_card, save
from weights_convert import convert, export, read_checkpoint
from weights_convert.__main__ import main
from weights_convert.layouts import LAYOUTS, ImageLayoutName
from weights_convert.model_types import IMAGE_MODEL


@pytest.fixture(scope="module")
def tiny_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny") / "tiny.pth"
    state = reference.tiny_torch().float().state_dict()
    torch.save({"model": state, "epoch": 1}, path)
    return path


@pytest.fixture
def arrays(tiny_file):
    return read_checkpoint(tiny_file)


def test_there_and_back_is_exact(arrays):
    back = export(convert(arrays, num_heads=3), layout="lukemelas")
    assert set(back) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(back[name], array, strict=True)


def test_the_export_loads_strictly_into_the_original(arrays):
    model = convert(arrays, num_heads=3)
    original = reference.tiny_torch(seed=5).float()
    original.load_state_dict({k: torch.tensor(v) for k, v in export(model, layout="lukemelas").items()}, strict=True)
    x = reference.images(0, 1, 32, 32).astype(np.float32)
    with torch.no_grad():
        expected = original(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()
    # Three layers of float32 at width 48.
    assert reference.relative_error(jax.jit(lambda m, x: m(x))(model, x), expected) < 1e-5


def test_architecture_from_the_arrays(arrays):
    config = convert(arrays, num_heads=3).config
    assert (config.width, config.depth, config.mlp_dim, config.patch_size) == (48, 3, 80, (8, 8))
    assert (config.image_size, config.num_classes, config.dropout) == ((32, 32), 7, 0.1)
    with pytest.raises(InputError, match="width 48 is not divisible by num_heads 7"):
        convert(arrays, num_heads=7)


def test_prefixes_wrappers_and_the_unused_layer(arrays):
    parallel = {f"module.{name}": array for name, array in arrays.items()}
    parallel["module.pre_logits.weight"] = np.zeros((48, 48), np.float32)
    parallel["module.pre_logits.bias"] = np.zeros(48, np.float32)
    plain, wrapped = convert(arrays, num_heads=3), convert(parallel, num_heads=3)
    jax.tree.map(np.testing.assert_array_equal, plain, wrapped)


def test_half_precision_becomes_float32(arrays):
    half = {name: array.astype(np.float16) for name, array in arrays.items()}
    model = convert(half, num_heads=3)
    assert {leaf.dtype for leaf in jax.tree.leaves(model)} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(model.norm.scale[...], half["norm.weight"].astype(np.float32))


def test_a_rectangular_grid_needs_the_image_size(x64):
    state = reference.state_arrays(reference.tiny_torch((32, 48)))
    with pytest.raises(InputError, match="24 positions are no square grid"):
        convert(state, num_heads=3)
    assert convert(state, num_heads=3, image_size=(32, 48)).config.grid == (4, 6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("norm.weight"), "1 missing: norm.weight"),
        (lambda a: a.pop("transformer.blocks.1.attn.proj_k.bias"), "missing: transformer.blocks.1.attn.proj_k.bias"),
        (lambda a: a.update(extra=np.zeros(2)), "1 left over: extra"),
        (lambda a: a.update({"fc.bias": np.zeros(9)}), r"fc.bias is \(9,\), not \(7,\)"),
        (lambda a: a.update({"transformer.blocks.0.norm1.bias": np.zeros(4)}), r"norm1.bias is \(4,\), not \(48,\)"),
        (
            lambda a: a.update({"patch_embedding.weight": np.zeros(4)}),
            "not the layout lukemelas: an array has another number of axes",
        ),
        (lambda a: a.update({"norm.bias": np.full(48, np.nan, np.float32)}), "norm.bias holds NaN or infinite"),
    ],
)
def test_misfits_are_listed(arrays, change, message):
    change(arrays)
    with pytest.raises(InputError, match=message):
        convert(arrays, num_heads=3)


def test_another_architecture(arrays):
    with pytest.raises(InputError, match=r"another architecture than B_16: patch_size is .*; width is 48, not 768"):
        convert(arrays, name="B_16")
    with pytest.raises(
        InputError, match=r"none of the known layouts; the file has a\.weight, ...; .*write a rules file"
    ):
        convert({"a.weight": np.zeros((3, 3))})
    for wrong in (dict(layout="timm9"), dict(name="H_14")):
        with pytest.raises(InputError, match=r"unknown (layout|architecture)"):
            convert(arrays, **wrong)
    with pytest.raises(InputError, match="unknown layout"):
        export(convert(arrays, num_heads=3), layout="timm9")


def test_type_checkers_know_every_layout():
    assert {name for name, layout in LAYOUTS.items() if layout.model_type is IMAGE_MODEL} == set(
        get_args(ImageLayoutName)
    )


def test_command_converts_inspects_and_lists(tiny_file, tmp_path, capsys):
    out = tmp_path / "model"
    assert main(["convert", str(tiny_file), "--out", str(out), "--num-heads", "3", "--image-size", "48"]) == 0
    captured = capsys.readouterr()
    assert "converted 44/44 parameters" in captured.err
    model = load(out)
    assert model.config.image_size == (48, 48)
    assert load_card(out).provenance["source"] == "tiny.pth"
    assert main(["inspect", str(tiny_file), "--num-heads", "3"]) == 0
    text = capsys.readouterr().out
    assert "transformer.blocks.2.pwff.fc2.weight" in text
    assert "48x80" in text
    assert "layout: lukemelas (PyTorch-Pretrained-ViT)" in text
    assert "image 32x32, 7 classes" in text
    assert main(["list"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in CONFIGS)
    assert "86,859,496" in text
    published, toys = text.split("toy architectures")
    assert all(f"  {name} " in published for name in ("B_16", "Ti_16", "catr"))
    assert all(f"  {name} " in toys for name in ("Nano_4", "Pico_8", "Mini_16", "scenes"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["convert", "{file}", "--out", "{tmp}/m", "--num-heads", "3", "--image-size", "50"], "50x50 is not divisible"),
        (["convert", "{file}", "--out", "{tmp}/m", "--num-heads", "3", "--layout", "x"], "unknown layout 'x'"),
        (["convert", "{file}", "--out", "{tmp}/m", "--name", "B_16"], "another architecture than B_16"),
        (["convert", "{tmp}/none.pth", "--out", "{tmp}/m"], "none.pth: no such file"),
        (["convert", "{tmp}/cut.pth", "--out", "{tmp}/m"], "cut.pth: truncated or damaged"),
        (["convert", "{file}", "--out", "{tmp}/full", "--num-heads", "3"], "full: exists and is not a saved model"),
        (["inspect", "{tmp}/cut.pth"], "cut.pth: truncated or damaged"),
    ],
)
def test_wrong_input_is_one_line(arguments, message, tiny_file, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x.txt").write_text("x")
    (tmp_path / "cut.pth").write_bytes(tiny_file.read_bytes()[:9000])
    before = sorted(tmp_path.rglob("*"))
    assert main([a.format(file=tiny_file, tmp=tmp_path) for a in arguments]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("converted")]
    assert len(lines) == 1
    assert message in lines[0]
    assert sorted(tmp_path.rglob("*")) == before


def test_an_existing_model_is_kept_unless_forced(tiny_file, tmp_path, capsys):
    command = ["convert", str(tiny_file), "--out", str(tmp_path / "m"), "--num-heads", "3"]
    assert main(command) == 0
    assert main(command) == 2
    assert "give --force" in capsys.readouterr().err
    assert main([*command, "--force", "--num-classes", "4"]) == 0
    assert load(tmp_path / "m").config.num_classes == 4


def test_unknown_flags_and_a_full_disk(tiny_file, tmp_path):
    command = [sys.executable, "-m", "weights_convert", "convert", str(tiny_file), "--out", str(tmp_path / "m")]
    done = subprocess.run([*command, "--nmae", "x"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: unknown flag --nmae; did you mean --name")
    assert len(done.stderr.splitlines()) == 1

    small_files = ["bash", "-c", 'ulimit -f 10; exec "$@"', "bash"]  # a write past 10 KiB fails, as on a full disk
    done = subprocess.run([*small_files, *command, "--num-heads", "3"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "free some space" in done.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("zipped", [True, False])
def test_a_large_model_converts_in_little_memory(zipped, tmp_path):
    """The command's peak memory, minus that for a tiny file, is at most 1.5 x the file's size."""
    shapes = {k: v.shape for k, v in reference.golden_parameters("lukemelas_vit", "L_16_imagenet1k").items()}
    path, small = tmp_path / "large.pth", tmp_path / "small.pth"
    torch.save({k: torch.full(s, 0.01) for k, s in shapes.items()}, path, _use_new_zipfile_serialization=zipped)
    torch.save(reference.tiny_torch().float().state_dict(), small)
    script = (
        "import resource, sys; from weights_convert.__main__ import main; code = main(sys.argv[1:]);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss); sys.exit(code)"
    )

    def peak(file, out, *flags) -> int:
        # The shell forks a small process; a child of this large process would inherit its peak.
        forked = ["bash", "-c", '"$@"; exit $?', "bash"]
        command = [*forked, sys.executable, "-c", script, "convert", str(file), "--out", str(tmp_path / out), *flags]
        return 1024 * int(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])

    extra = peak(path, "a") - peak(small, "b", "--num-heads", "3")
    print(f"extra memory: {extra / path.stat().st_size:.2f} x the file")
    assert (
        0.9 * path.stat().st_size < extra < 1.5 * path.stat().st_size
    )  # less than the model would be a wrong measurement


def test_a_run_exports_its_best_model(tmp_path, capsys):
    model = create(VisionTransformer, CONFIG)
    save(model, tmp_path / "run" / "best")
    assert main(["export", str(tmp_path / "run"), "--layout", "timm", "--out", str(tmp_path / "a.safetensors")]) == 0
    back = convert(tmp_path / "a.safetensors", num_heads=CONFIG.num_heads)
    jax.tree.map(np.testing.assert_array_equal, jax.tree.leaves(back), jax.tree.leaves(model))
