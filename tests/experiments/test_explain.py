"""The explain program as a user runs it: figures, arrays, the faithfulness table; and its errors."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

import tests.reference as reference
from experiments.explain import __main__ as explain
from experiments.explain.scores import bootstrap_interval
from vit_jax import (
    Preprocess,
    VisionTransformer,
    ViTConfig,
    attention_rollout,
    cls_attention,
    forward_with_attention,
    relevance,
    save,
    to_grid,
)
from vit_jax.explain.methods import METHODS

NAMES = ("cat", "big_dog", "cow")


@pytest.fixture(scope="module")
def model():
    config = ViTConfig(
        image_size=(16, 24), patch_size=(8, 8), width=16, depth=2, num_heads=2, mlp_dim=24, num_classes=3,
        preprocess=Preprocess(crop=0.8),
    )  # fmt: skip
    draw = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: VisionTransformer(config, rngs=nnx.Rngs(0)))
    return jax.tree.map(lambda leaf: jnp.asarray(0.4 * draw.normal(size=leaf.shape), "float32"), shapes)


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save(model, folder, class_names=NAMES)
    return str(folder)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Return a folder with five images of two shapes, and a folder with their masks."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    (root / "images" / "more").mkdir(parents=True)
    (root / "masks").mkdir()
    for i in range(5):
        height, width = (40, 60) if i % 2 else (50, 30)
        place = root / "images" / ("more" if i == 4 else "") / f"p{i}.png"
        Image.fromarray(rng.integers(0, 255, (height, width, 3), np.uint8)).save(place)
        mask = np.full((height, width), 2, np.uint8)
        mask[5:30, 5:20] = 3
        mask[8:28, 8:18] = 1
        Image.fromarray(mask).save(root / "masks" / f"p{i}.png")
    return root


def test_a_folder_all_methods_and_classes(saved, model, pictures, tmp_path, capsys):
    out = tmp_path / "out"
    command = [saved, str(pictures / "images"), "--out", str(out), "--method", "all", "--target", "big_dog,0"]
    more = ["--rise-masks", "6", "--steps", "2", "--batch-size", "2", "--head", "all", "--layer", "all", "--position"]
    assert explain.main(command + more) == 0
    printed = capsys.readouterr().out
    assert "5/5" in printed
    assert "written to" in printed
    stems = {"p0", "p1", "p2", "p3", "more/p4"}
    expected = {f"{stem}{end}" for stem in stems for end in (".png", ".npz", "_heads.png", "_layers.png")}
    assert {str(p.relative_to(out)) for p in out.rglob("*.*")} == expected | {"position_similarity.png"}
    stored = reference.load_arrays(out / "more" / "p4.npz")
    preprocess = model.config.image_preprocess
    image = preprocess(Image.open(pictures / "images" / "more" / "p4.png"))[None]
    output = jax.jit(forward_with_attention)(model, image)
    np.testing.assert_allclose(stored["probabilities"], jax.nn.softmax(output.logits[0]), atol=1e-5)
    assert stored["predicted"] == output.logits[0].argmax()
    assert stored["targets"].tolist() == [1, 0]
    assert stored["class_names"].tolist() == list(NAMES)
    rows = cls_attention(output.attention)[0]
    np.testing.assert_allclose(stored["attention"][1].ravel(), rows.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(stored["attention_heads"], to_grid(rows, (2, 3)), atol=1e-5)
    assert stored["attention_layers"].shape == (2, 2, 3)
    np.testing.assert_allclose(stored["attention_layers"][1], stored["attention"][0], atol=1e-6)
    rolled = attention_rollout(output.attention, query=0)[0, 1:]
    np.testing.assert_allclose(stored["rollout"][0].ravel(), rolled, atol=1e-5)
    expected = jax.jit(relevance)(model, image, jnp.array([[1, 0]]))
    np.testing.assert_allclose(stored["relevance"].reshape(2, 6), expected[0], atol=1e-5)
    for name in METHODS:
        assert stored[name].shape == ((2, 16, 24) if name == "rise" else (2, 2, 3)), name
        assert np.isfinite(stored[name]).all()
    for picture in out.rglob("*.png"):
        with Image.open(picture) as opened:
            assert opened.width >= 400, picture


def test_the_predicted_class_and_one_head(saved, model, pictures, tmp_path, capsys):
    """Results of two files that differ in their suffix keep it; a title names class and probability."""
    source = pictures / "images" / "p1.png"
    with Image.open(source) as opened:
        opened.save(tmp_path / "p1.bmp")
    command = [saved, str(source), str(tmp_path / "p1.bmp"), "--out", str(tmp_path / "o"), "--method", "attention"]
    assert explain.main([*command, "--layer", "0", "--head", "1"]) == 0
    assert {p.name for p in (tmp_path / "o").iterdir()} == {"p1.png.png", "p1.png.npz", "p1.bmp.png", "p1.bmp.npz"}
    stored = reference.load_arrays(tmp_path / "o" / "p1.png.npz")
    assert stored["targets"].tolist() == [int(stored["predicted"])]
    attention = jax.jit(forward_with_attention)(
        model, model.config.image_preprocess(Image.open(source))[None]
    ).attention
    np.testing.assert_allclose(stored["attention"].ravel(), cls_attention(attention, layer=0)[0, 1], atol=1e-5)
    best = int(stored["predicted"])
    assert f"{NAMES[best]} {stored['probabilities'][best]:.3f}" in capsys.readouterr().out


def test_position_alone_at_another_size(saved, tmp_path):
    assert explain.main([saved, "--position", "--image-size", "32x40", "--out", str(tmp_path)]) == 0
    assert [p.name for p in tmp_path.iterdir()] == ["position_similarity.png"]


def test_a_corrupt_image_in_a_folder_is_skipped(saved, pictures, tmp_path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "bad.jpg").write_bytes(b"no picture")
    with Image.open(pictures / "images" / "p0.png") as opened:
        opened.save(folder / "good.jpg")
    command = [saved, str(folder), "--out", str(tmp_path / "o"), "--method", "attention"]
    assert explain.main(command) == 0
    assert "skipped" in capsys.readouterr().err
    assert {p.name for p in (tmp_path / "o").iterdir()} == {"good.png", "good.npz"}
    (folder / "good.jpg").unlink()
    assert explain.main(command) == 2
    assert "none of the images can be read" in capsys.readouterr().err


def test_evaluate(saved, pictures, tmp_path, capsys):
    command = [
        saved,
        str(pictures / "images"),
        "--evaluate",
        "--masks",
        str(pictures / "masks"),
        "--out",
        str(tmp_path),
    ]
    options = ["--method", "attention,rise", "--rise-masks", "4", "--batch-size", "2", "--baseline", "blur"]
    assert explain.main(command + options) == 0
    printed = capsys.readouterr().out
    assert (tmp_path / "faithfulness.md").read_text().strip() in printed
    stored = json.loads((tmp_path / "faithfulness.json").read_text())
    methods = ["attention", "rise", "random (control)", "centred (control)"]
    assert list(stored["scores"]) == methods
    assert [line.split("|")[1].strip() for line in printed.splitlines() if line.startswith("| ")][1:] == methods
    for scores in stored["scores"].values():
        assert set(scores) == {
            "insertion/blur", "deletion/blur", "positive/blur", "negative/blur", "pointing", "iou", "pixel accuracy",
            "AP", "seconds",
        }  # fmt: skip
        assert all(len(scores[key]) == 5 for key in scores if key != "seconds")
        assert all(0 <= value <= 1 for key in scores if key != "seconds" for value in scores[key])
    # The batch size does not change the scores, except of the random control.
    assert explain.main(command + ["--method", "attention", "--batch-size", "5", "--baseline", "blur"]) == 0
    again = json.loads((tmp_path / "faithfulness.json").read_text())["scores"]
    for method in ("attention", "centred (control)"):
        for key in ("insertion/blur", "positive/blur", "iou"):
            np.testing.assert_allclose(again[method][key], stored["scores"][method][key], atol=1e-4)


def test_bootstrap_interval():
    values = np.random.default_rng(0).normal(size=400)
    mean, low, high = bootstrap_interval(values)
    assert mean == pytest.approx(values.mean())
    expected = 1.96 * values.std() / 20
    assert mean - low == pytest.approx(expected, rel=0.15)
    assert high - mean == pytest.approx(expected, rel=0.15)
    assert bootstrap_interval(np.array([0.25])) == (0.25, 0.25, 0.25)
    assert np.isnan(bootstrap_interval(np.array([0.25, np.nan, 0.5]))).all()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["IMAGE"], "no --out"),
        (["--out", "OUT"], "no image given"),
        (["nowhere.jpg", "--out", "OUT"], "nowhere.jpg: no such file"),
        (["IMAGE", "--out", "OUT", "--method", "lime"], "unknown method 'lime': one of attention, rollout"),
        (["IMAGE", "--out", "OUT", "--target", "horse"], "no class 'horse': classes are 0 to 2, or by name: cat"),
        (["IMAGE", "--out", "OUT", "--target", "3"], "no class '3'"),
        (["IMAGE", "--out", "OUT", "--layer", "2"], "no layer 2: the model has 2"),
        (["IMAGE", "--out", "OUT", "--layer", "x"], "--layer x: not a number"),
        (["IMAGE", "--out", "OUT", "--head", "-3"], "no head -3: the model has 2"),
        (["IMAGE", "--out", "OUT", "--method", "rollout", "--head", "0"], "need the method attention"),
        (["IMAGE", "--out", "OUT", "--image-size", "20"], "20x20 is not divisible"),
        (["IMAGE", "--out", "OUT", "--heads", "1"], "unrecognized arguments"),
        (["BAD", "--out", "OUT"], "bad.png: not a readable image"),
        (["IMAGE", "IMAGE", "--out", "OUT"], "two images have the same name"),
        (["IMAGE", "--evaluate"], "--evaluate needs --masks"),
        (["IMAGE", "--evaluate", "--masks", "nowhere"], "nowhere: no such folder"),
        (["IMAGE", "--evaluate", "--masks", "EMPTY"], "no mask for p0.png"),
        (["IMAGE", "--evaluate", "--masks", "WRONG"], "30x50"),
        (["IMAGE", "--evaluate", "--masks", "VALUES"], "values must be 1 (object)"),
        (["--position", "--evaluate", "--masks", "EMPTY"], "no image given"),
    ],
)
def test_wrong_input_is_one_line(saved, pictures, tmp_path, capsys, flags, message):
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n but no more")
    for name, pixels in [("EMPTY", None), ("WRONG", np.ones((9, 9))), ("VALUES", np.full((50, 30), 7))]:
        (tmp_path / name).mkdir()
        stem = "other" if pixels is None else "p0"
        Image.fromarray((np.ones((4, 4)) if pixels is None else pixels).astype(np.uint8)).save(
            tmp_path / name / f"{stem}.png"
        )
    places = {"IMAGE": pictures / "images" / "p0.png", "BAD": tmp_path / "bad.png", "OUT": tmp_path / "out"}
    places |= {name: tmp_path / name for name in ("EMPTY", "WRONG", "VALUES")}
    argv = [saved, *(str(places.get(flag, flag)) for flag in flags)]
    try:
        code = explain.main(argv)
    except SystemExit as stop:
        code = stop.code
    error = capsys.readouterr().err
    assert code == 2
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert not list(tmp_path.rglob("*.npz"))


def test_evaluation_takes_a_single_layer(saved, pictures, capsys):
    argv = [saved, str(pictures / "images"), "--evaluate", "--masks", str(pictures / "masks")]
    assert explain.main([*argv, "--layer", "all"]) == 2
    assert "--layer all" in capsys.readouterr().err
