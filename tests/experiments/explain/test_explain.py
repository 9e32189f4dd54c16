"""The explain program as a user runs it: figures, arrays, the faithfulness table; and its errors."""

import json
import os
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import tests.reference as reference
from experiments.explain import __main__ as explain
from experiments.explain import results
from experiments.explain.flags import select_methods
from experiments.explain.scores import bootstrap_interval
from tests.experiments.explain.inputs import NAMES
from vit_jax import (
    InputError,
    attention_distance,
    attention_rollout,
    cls_attention,
    forward_with_attention,
    relevance,
    save,
    to_grid,
)
from vit_jax.checkpoint import with_num_classes
from vit_jax.explain import HEAD_METHODS, METHODS
from vit_jax.locks import lock_folder

EVERY = [*METHODS, *HEAD_METHODS]


def test_a_folder_all_methods_and_classes(saved, model, pictures, tmp_path, capsys):
    out = tmp_path / "out"
    command = [saved, str(pictures / "images"), "--out", str(out), "--method", "all", "--target", "big_dog,0"]
    more = ["--rise-masks", "6", "--steps", "2", "--batch-size", "2", "--head", "all", "--layer", "all", "--position"]
    assert explain.main(command + more) == 0
    printed = capsys.readouterr().out
    assert "5/5" in printed
    assert "written to" in printed
    stems = {"p0", "p1", "p2", "p3", "more/p4"}
    ends = [".png", ".npz", "_heads.png", "_layers.png", *(f"_{name}.png" for name in HEAD_METHODS)]
    expected = {f"{stem}{end}" for stem in stems for end in ends}
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
        shape = {"rise": (2, 16, 24), "pca": (2, 2, 3, 3)}.get(name, (2, 2, 3))
        assert stored[name].shape == shape, name
        assert np.isfinite(stored[name]).all()
    for name in HEAD_METHODS:
        assert stored[name].shape == (2, 2, 2), name
        assert np.isfinite(stored[name]).all()
    distances = attention_distance(output.attention, (2, 3), num_prefix=1, patch_size=(8, 8))
    np.testing.assert_allclose(stored["attention_distance"][1], distances[:, 0], rtol=1e-4)
    patches = output.features[0, 1:]
    cosines = patches @ patches[4] / jnp.linalg.norm(patches, axis=1) / jnp.linalg.norm(patches[4])
    np.testing.assert_allclose(stored["similarity"][0].ravel(), cosines, atol=1e-5)
    for picture in out.rglob("*.png"):
        with Image.open(picture) as opened:
            assert opened.width >= (300 if any(name in picture.name for name in HEAD_METHODS) else 400), picture


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


def test_a_second_process_is_refused(saved, pictures, tmp_path, capsys):
    command = [saved, str(pictures / "images" / "p1.png"), "--out", str(tmp_path / "o"), "--method", "attention"]
    with lock_folder(tmp_path / "o", "holds it"):
        assert explain.main(command) == 2
        assert {path.name for path in (tmp_path / "o").iterdir()} == {".lock"}
    assert "another process explains into it; wait for it" in capsys.readouterr().err
    assert explain.main(command) == 0
    assert not (tmp_path / "o" / ".lock").exists()


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
        (["IMAGE", "--out", "OUT", "--target", "\u00b2"], "no class '\u00b2'"),
        (["IMAGE", "--out", "OUT", "--target", "9" * 5000], "no class '999"),
        (["IMAGE", "--out", "OUT", "--target", "bigdog"], "no class 'bigdog': did you mean big_dog? Its classes are 0"),
        (["IMAGE", "--out", "OUT", "--target", "-1"], "no class '-1'"),
        (["IMAGE", "--out", "OUT", "--seed", "-1"], "--seed: '-1' is not a seed"),
        (["IMAGE", "--out", "OUT", "--layer", "2"], "no layer 2: the model has 2"),
        (["IMAGE", "--out", "OUT", "--layer", "x"], "--layer x: not a number"),
        (["IMAGE", "--out", "OUT", "--head", "-3"], "no head -3: the model has 2"),
        (["IMAGE", "--out", "OUT", "--method", "rollout", "--head", "0"], "need the method attention"),
        (["IMAGE", "--out", "OUT", "--method", "rollout", "--patch", "0,0"], "--patch needs the method similarity"),
        (["IMAGE", "--out", "OUT", "--method", "rollout", "--foreground"], "--foreground needs the method pca"),
        (["IMAGE", "--out", "OUT", "--image-size", "20"], "20x20 is not divisible"),
        (["IMAGE", "--out", "OUT", "--heads", "1"], "unknown flag --heads; did you mean --head"),
        (["BAD", "--out", "OUT"], "bad.png: not a readable image"),
        (["IMAGE", "IMAGE", "--out", "OUT"], "two images have the same name"),
        (["IMAGE", "--evaluate"], "--evaluate needs --masks"),
        (["IMAGE", "--evaluate", "--masks", "nowhere"], "nowhere: no such folder"),
        (["IMAGE", "--evaluate", "--masks", "EMPTY"], "no mask for p0; add p0.png"),
        (["IMAGE", "--evaluate", "--masks", "WRONG"], "30x50"),
        (["IMAGE", "--evaluate", "--masks", "NOTHING"], "no mask has an object (value 1)"),
        (["IMAGE", "--evaluate", "--masks", "VALUES"], "values must be 1 (object)"),
        (["--position", "--evaluate", "--masks", "EMPTY"], "no image given"),
    ],
)
def test_wrong_input_is_one_line(saved, pictures, tmp_path, capsys, flags, message):
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n but no more")
    for name, pixels in [
        ("EMPTY", None),
        ("WRONG", np.ones((9, 9))),
        ("VALUES", np.full((50, 30), 7)),
        ("NOTHING", np.full((50, 30), 2)),
    ]:
        (tmp_path / name).mkdir()
        stem = "other" if pixels is None else "p0"
        Image.fromarray((np.ones((4, 4)) if pixels is None else pixels).astype(np.uint8)).save(
            tmp_path / name / f"{stem}.png"
        )
    places = {"IMAGE": pictures / "images" / "p0.png", "BAD": tmp_path / "bad.png", "OUT": tmp_path / "out"}
    places |= {name: tmp_path / name for name in ("EMPTY", "WRONG", "VALUES", "NOTHING")}
    argv = [saved, *(str(places.get(flag, flag)) for flag in flags)]
    try:
        code = explain.main(argv)
    except SystemExit as stop:
        code = stop.code
    error = capsys.readouterr().err
    assert code == 2
    assert message in error
    assert len(error.strip().splitlines()) == 1 + ("NOTHING" in flags)  # one for the mask, one for the end
    assert not (tmp_path / "out").exists()


def test_evaluation_takes_a_single_layer(saved, pictures, capsys):
    argv = [saved, str(pictures / "images"), "--evaluate", "--masks", str(pictures / "masks")]
    assert explain.main([*argv, "--layer", "all"]) == 2
    assert "--layer all" in capsys.readouterr().err


def test_a_model_without_a_head_has_maps_but_no_classes(model, pictures, tmp_path, capsys):
    """Methods that need a class are left out of the default and of all, and refused by name."""
    save(with_num_classes(model, 0), tmp_path / "bare")
    command = [str(tmp_path / "bare"), str(pictures / "images" / "p0.png"), "--out", str(tmp_path / "out")]
    assert explain.main(command) == 0
    captured = capsys.readouterr()
    assert captured.err == "left out: relevance (explains a class, and the model has no classification head)\n"
    assert captured.out.splitlines()[0] == "1/1 p0"
    stored = reference.load_arrays(tmp_path / "out" / "p0.npz")
    assert set(stored) == {"attention", "rollout", "no_information", "settings", "source"}
    image = model.config.image_preprocess(Image.open(pictures / "images" / "p0.png"))[None]
    expected = cls_attention(jax.jit(forward_with_attention)(model, image).attention).mean(axis=1)
    np.testing.assert_allclose(stored["attention"].ravel(), expected[0], atol=1e-5)
    for flags, message in (
        (["--method", "attention,gradcam"], "--method gradcam: explains a class"),
        (["--target", "0"], "--target: the model has no classification head"),
        (["--evaluate", "--masks", str(pictures / "masks")], "has no classification head"),
    ):
        assert explain.main([*command, *flags]) == 2
        assert message in capsys.readouterr().err
    expected = ["attention", "rollout", "flow", "pca", "similarity", "token_norm", "attention_distance"]
    assert select_methods(["all"], replace(model.config, num_classes=0)) == expected


def test_all_leaves_out_what_cannot_run(model, capsys):
    large = replace(model.config, image_size=(136, 128))  # 17 x 16 patches and [class]
    assert select_methods(["all"], large) == [name for name in EVERY if name != "flow"]
    assert capsys.readouterr().err == "left out: flow (takes at most 256 tokens, and the model has 273)\n"
    assert select_methods(["all"], replace(large, image_size=(128, 120))) == EVERY
    scored = select_methods(["all"], model.config, scored=True)
    assert scored == [name for name in METHODS if name != "pca"]
    pooled = replace(model.config, class_token=False, pooling="map")
    assert select_methods(["all"], pooled) == [
        name
        for name in EVERY
        if name != "head_contributions" and (name in HEAD_METHODS or not METHODS[name].uses_readout)
    ]
    with pytest.raises(InputError, match=r"attention pooling.*use integrated_gradients or rise"):
        select_methods(None, pooled)
    with pytest.raises(InputError, match="--method flow: takes at most 256 tokens, and the model has 273"):
        select_methods(["flow,rollout"], large)


def test_maps_without_information_are_labelled(model, pictures, tmp_path, capsys):
    """A head of zeros has zero gradients everywhere: its class-specific maps say nothing."""
    save(with_num_classes(model, 5), tmp_path / "new_head")
    command = [str(tmp_path / "new_head"), str(pictures / "images" / "p0.png"), "--out", str(tmp_path / "out")]
    assert explain.main([*command, "--method", "attention,gradcam", "--target", "0,2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    expected = ["gradcam of class 0: all zero", "gradcam of class 2: all zero"]
    assert lines[1:3] == [f"  no information in {line}" for line in expected]
    stored = reference.load_arrays(tmp_path / "out" / "p0.npz")
    assert stored["no_information"].tolist() == expected
    argv = [*command, "--evaluate", "--masks", str(pictures / "masks"), "--method", "gradcam,attention"]
    assert explain.main(argv) == 0
    assert "gradcam: 1 of 1 maps carry no information" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "faithfulness.json").read_text())["no_information"] == {
        "gradcam": [True], "attention": [False], "random (control)": [False], "centred (control)": [False]
    }  # fmt: skip


def test_a_file_name_that_is_not_utf8(saved, pictures, tmp_path, capsys):
    name = os.fsencode(tmp_path / "in") + b"/caf\xe9.png"
    (tmp_path / "in").mkdir()
    with open(name, "wb") as file:
        file.write((pictures / "images" / "p0.png").read_bytes())
    assert explain.main([saved, str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--method", "attention"]) == 0
    assert sorted(os.listdir(os.fsencode(tmp_path / "out"))) == [b"caf\xe9.npz", b"caf\xe9.png"]
    assert "1/1 caf" in capsys.readouterr().out


def test_a_quiet_call_prints_the_path_and_maps_without_information(saved, pictures, tmp_path, capsys):
    images = [str(pictures / "images" / f"p{i}.png") for i in (0, 1)]
    command = [saved, *images, "--method", "attention,rollout", "--out"]
    assert explain.main([*command, str(tmp_path / "out"), "--quiet"]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"written to {tmp_path / 'out'}/: a .png and a .npz for each of 2 images\n"
    assert printed.err == ""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results, "uninformative_reason", lambda scores: "all zero")
        assert explain.main([*command, str(tmp_path / "other"), "--quiet"]) == 0
    printed = capsys.readouterr().out
    assert "1/2 p0" in printed
    assert "no information in " in printed
