"""Programs: StableHLO in a fresh process, ONNX in onnxruntime, each for several batch sizes."""

import json
import subprocess
import sys
import warnings
from dataclasses import asdict, replace

import jax
import numpy as np
import pytest

import tests.reference as reference
import vit_jax
from tests.create import create
from tests.vit_jax.test_position_models import MODELS as POSITIONED
from tests.weights_convert.folders.models import IMAGENET, NAMES, make
from vit_jax import InputError, VisionTransformer
from weights_convert import programs
from weights_convert.__main__ import main
from weights_convert.programs import ONNX, STABLEHLO, write_program

CHANGES = {"num_registers": 2, "preprocess": IMAGENET, "dropout": 0.1}
LOAD = """
import sys
import jax.export, numpy as np
program = jax.export.deserialize(bytearray(open("model.stablehlo", "rb").read()))
for count in (1, 3):
    np.save(f"{count}.npy", program.call(np.load("images.npy")[:count]))
assert not [name for name in sys.modules if name.startswith(("vit_jax", "flax"))]
"""


@pytest.fixture
def saved(tmp_path):
    model = make(**CHANGES)
    vit_jax.save(model, tmp_path / "saved", class_names=NAMES)
    return model


def run_model(model):
    images = reference.images(3, 3, *model.config.image_size).astype(np.float32)
    return images, np.asarray(jax.jit(lambda model, images: model(images))(model, images))


@pytest.mark.slow
def test_stablehlo_runs_in_a_fresh_process_without_this_library(saved, tmp_path):
    assert (
        main(["export", str(tmp_path / "saved"), "--format", "stablehlo", "--out", str(tmp_path / "model.stablehlo")])
        == 0
    )
    images, expected = run_model(saved)
    np.save(tmp_path / "images.npy", images)
    subprocess.run([sys.executable, "-c", LOAD], cwd=tmp_path, check=True, env={"JAX_PLATFORMS": "cpu"}, timeout=120)
    for count in (1, 3):
        assert reference.relative_error(np.load(tmp_path / f"{count}.npy"), expected[:count]) < 1e-6
    stored = json.loads((tmp_path / "model.stablehlo.json").read_text())
    assert stored["input"]["shape"] == ["batch", 32, 32, 3]
    assert stored["output"]["shape"] == ["batch", len(NAMES)]
    assert stored["class_names"] == list(NAMES)
    expected = {"size": [32, 32], **asdict(IMAGENET)}
    assert stored["preprocess"] == expected | {name: list(expected[name]) for name in ("mean", "std")}


def test_onnx_runs_in_onnxruntime(saved, tmp_path, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what jax2onnx imports
        pytest.importorskip("jax2onnx")
        runtime = pytest.importorskip("onnxruntime")
        out = tmp_path / "model.onnx"
        assert main(["export", str(tmp_path / "saved"), "--format", "onnx", "--out", str(out)]) == 0
    assert "differs from the model by" in capsys.readouterr().out
    session = runtime.InferenceSession(out, providers=["CPUExecutionProvider"])
    images, expected = run_model(saved)
    for count in (1, 3):
        (logits,) = session.run(["logits"], {"images": images[:count]})
        assert reference.relative_error(logits, expected[:count]) < 1e-5
    assert json.loads((tmp_path / "model.onnx.json").read_text())["class_names"] == list(NAMES)


@pytest.mark.parametrize("name", ["rotary and a table, normed branches", "bias in each block"])
@pytest.mark.parametrize("program", [STABLEHLO, ONNX], ids=["stablehlo", "onnx"])
def test_positions_within_the_blocks_are_exported(program, name, tmp_path):
    model = create(VisionTransformer, POSITIONED[name])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what jax2onnx imports
        if program is ONNX:
            pytest.importorskip("jax2onnx")
        error = write_program(model, tmp_path / f"model{program.suffix}", program)
    assert error is None or error < program.bound


def test_a_program_that_differs_is_not_left(tmp_path):
    model = make()
    wrong = replace(STABLEHLO, load=lambda contents: lambda images: np.full((len(images), len(NAMES)), 0.5, np.float32))
    with pytest.raises(InputError, match="not written: the program's outputs differ"):
        write_program(model, tmp_path / "model.stablehlo", wrong)
    nan = replace(
        STABLEHLO, load=lambda contents: lambda images: np.full((len(images), len(NAMES)), np.nan, np.float32)
    )
    with pytest.raises(InputError, match="differ"):
        write_program(model, tmp_path / "model.stablehlo", nan)
    assert not list(tmp_path.iterdir())


def test_a_missing_converter_is_named(saved, tmp_path, monkeypatch, capsys):
    def refuse(name):
        raise ImportError(name) if name == "jax2onnx" else AssertionError(name)

    monkeypatch.setattr(programs.importlib, "import_module", refuse)
    assert main(["export", str(tmp_path / "saved"), "--format", "onnx", "--out", str(tmp_path / "model.onnx")]) == 2
    assert capsys.readouterr().err == "error: --format onnx needs jax2onnx: pip install 'vit-jax[onnx]'\n"
    assert not (tmp_path / "model.onnx").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--out", "model.onnx"], "ends in .stablehlo"),
        (["--out", "no/model.stablehlo"], "its folder does not exist"),
        (["--out", "model.stablehlo", "--layout", "timm"], "leave out --layout"),
        (["--out", "model.stablehlo", "--centre", "floor"], "only --format folder"),
    ],
)
def test_flags_that_do_not_fit_are_refused(flags, message, saved, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["export", "saved", "--format", "stablehlo", *flags]) == 2
    assert message in capsys.readouterr().err


def test_an_onnx_file_over_2_gib_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(programs, "MAX_ONNX_BYTES", 1000)
    with pytest.raises(InputError, match="at most 2 GiB"):
        write_program(make(), tmp_path / "model.onnx", ONNX)
