"""--dtype: programs compute in it, answer nearly as in float32, and say where it is slower."""

import csv
import json

import jax
import numpy as np
import pytest

import tests.reference as reference
from experiments import predict
from experiments.common.precision import slowness
from experiments.evaluate import __main__ as evaluate
from experiments.explain import __main__ as explain
from tests.create import create
from vit_jax import VisionTransformer, ViTConfig, save
from vit_jax.explain.methods import METHODS
from vit_jax.precision import cast

CONFIG = ViTConfig(
    image_size=(16, 24), patch_size=(8, 8), width=16, depth=2, num_heads=2, mlp_dim=24, num_classes=2
)  # fmt: skip


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save(create(VisionTransformer, CONFIG), folder, class_names=("bar", "disc"))
    return str(folder)


def test_a_model_computes_in_the_type_of_its_parameters():
    model, images = create(VisionTransformer, CONFIG), np.random.default_rng(0).uniform(-1, 1, (3, 16, 24, 3))
    exact, rounded = model(images), jax.jit(cast(model, "bfloat16"))(images)
    assert (exact.dtype, rounded.dtype) == ("float32", "bfloat16")
    error = np.abs(rounded.astype("float32") - exact).max() / np.abs(exact).max()
    assert 1e-4 < error < 3e-2  # bfloat16 has 8 significant bits; float32 would differ by less than 1e-6


@pytest.mark.parametrize(
    ("dtype", "backend", "version", "has_products", "reason"),
    [
        ("float32", "cpu", "0.10.2", False, ""),
        ("bfloat16", "gpu", "0.10.2", False, ""),
        ("bfloat16", "cpu", "0.12.0.1", True, ""),
        ("bfloat16", "cpu", "0.12.0.1", False, "no AVX512-BF16"),
        ("bfloat16", "cpu", "0.10.2", True, "jaxlib 0.10.2 is slow in it"),
    ],
)
def test_where_it_is_slower(dtype, backend, version, has_products, reason):
    found = slowness(dtype, backend, version, has_products=has_products)
    assert reason in found
    assert bool(reason) == bool(found)


def test_predict_and_evaluate(saved, shapes, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("experiments.common.precision.multiplies_bfloat16", lambda: False)
    rows, accuracy = {}, {}
    for dtype in ("float32", "bfloat16"):
        out = tmp_path / f"{dtype}.csv"
        assert predict.main([saved, str(shapes / "val"), str(out), "--dtype", dtype]) == 0
        assert ("is slower than float32 here" in capsys.readouterr().err) == (dtype == "bfloat16")
        with open(out, newline="", encoding="utf-8") as file:
            rows[dtype] = list(csv.reader(file))
        command = [saved, "--data", str(shapes), "--dtype", dtype, "--out", str(tmp_path / dtype)]
        assert evaluate.main(command) == 0
        accuracy[dtype] = json.loads((tmp_path / dtype / "evaluation.json").read_text())["accuracy"]
    agreement = np.mean([a == b for a, b in zip(*rows.values(), strict=True)])
    assert agreement > 0.8  # of 10 images, some may lie at the boundary
    assert abs(accuracy["float32"] - accuracy["bfloat16"]) <= 0.2


@pytest.mark.slow
def test_explain_stores_float32(saved, shapes, tmp_path):
    command = [saved, str(next((shapes / "val").iterdir())), "--rise-masks", "8", "--steps", "2", "--target", "1"]
    compared, stored = ("attention", "rollout", "relevance"), []
    for dtype, method in (("float32", ",".join(compared)), ("bfloat16", "all")):
        out = ["--method", method, "--out", str(tmp_path / dtype), "--dtype", dtype]
        assert explain.main([*command, *out]) == 0
        stored.append(reference.load_arrays(next((tmp_path / dtype).glob("*.npz"))))
    exact, rounded = stored
    for name in (*METHODS, "probabilities"):
        assert rounded[name].dtype == np.float32, name
        assert np.isfinite(rounded[name]).all(), name
    for name in (*compared, "probabilities"):
        assert np.abs(exact[name] - rounded[name]).max() < 0.1 * np.abs(exact[name]).max(), name
    np.testing.assert_allclose(rounded["probabilities"].sum(), 1, rtol=1e-5)
