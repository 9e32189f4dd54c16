"""The figures of an image: what their titles and panels say, and the flags of their files."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.explain import __main__ as explain
from experiments.explain.explainer import Explainer
from experiments.explain.figures import draw_figures
from experiments.explain.images import OpenedImage
from tests.experiments.explain.inputs import NAMES
from tests.figures import assert_texts_apart
from vit_jax import ModelCard
from vit_jax.checkpoint import with_num_classes
from vit_jax.explain import MethodOptions

RNG = np.random.default_rng(0)
IMAGE = OpenedImage(Path("more/p1"), "p1.png", np.zeros((16, 24, 3), np.uint8), RNG.uniform(size=(16, 24, 3)), "image",
                    (0, 0, ""))  # fmt: skip


def draw(model, methods, options, targets, *, scale="own", **more):
    explainer = Explainer(model, ModelCard(model.config, NAMES), methods, options, **more)
    results = {name: RNG.normal(size=(len(targets), 2, 3)) for name in methods}
    results |= {"attention_heads": RNG.uniform(size=(2, 2, 3)), "attention_layers": RNG.uniform(size=(2, 2, 3))}
    results |= {"targets": np.array(targets), "probabilities": np.array([0.55, 0.28, 0.17], np.float32)}
    return draw_figures(explainer, IMAGE, results, scale)


def read_titles(figure):
    return [
        axes.get_title().replace("_\n", "_").replace("\n", " ")
        for axes in figure.axes
        if axes.images and axes.get_title()
    ]


def test_titles_name_the_prediction_the_targets_layers_and_heads(model):
    methods = ("attention", "rollout", "relevance", "gradcam")
    figures = draw(model, methods, MethodOptions(layer=0, head=-1), [1], all_heads=True, all_layers=True)
    assert figures[""].get_suptitle() == "p1.png\nPredicted: cat (55 %)"
    assert read_titles(figures[""]) == [
        "image",
        "Attention, layer 0, head 1",
        "Attention rollout",
        "Relevance for big_dog (p = 0.28)",
        "Attention Grad-CAM, layer 0 for big_dog (p = 0.28)",
    ]
    assert figures["_heads"].get_suptitle().splitlines()[2] == "Attention by head, layer 0"
    assert figures["_layers"].get_suptitle().splitlines()[2] == "Attention by layer, head 1"


def test_targets_share_a_grid_with_one_row_that_is_not_full(model):
    figure = draw(model, ("rollout", "relevance", "integrated_gradients"), MethodOptions(), [0, 1, 2])[""]
    shown = [axes for axes in figure.axes if axes.images and axes.get_title()]
    assert [axes.get_subplotspec().colspan.start for axes in shown] == [0, 1, 2, 3, 0, 1, 2, 3]
    assert read_titles(figure)[-1] == "Integrated gradients for cow (p = 0.17)"


def test_a_shared_scale_has_the_units_of_the_method(model):
    figures = [draw(model, ("integrated_gradients",), MethodOptions(), [0, 1], scale=s)[""] for s in ("own", "shared")]
    labels = [[axes.get_xlabel() for axes in figure.axes if axes.get_xlabel()] for figure in figures]
    assert labels == [["each map on its own scale"], ["Integrated gradients (change of the logit)"]]


def test_a_model_without_a_head_shows_no_class(model):
    """Its card may have class names, of the file that it came from."""
    figure = draw(with_num_classes(model, 0), ("attention",), MethodOptions(), [0])[""]
    assert figure.get_suptitle() == "p1.png"
    assert read_titles(figure) == ["image", "Attention, layer 1"]


def test_files_have_the_format_and_resolution_of_the_flags(saved, pictures, tmp_path, capsys):
    out = tmp_path / "out"
    command = [saved, str(pictures / "images" / "p1.png"), "--out", str(out), "--method", "attention", "--position"]
    assert explain.main([*command, "--format", "svg", "--head", "all"]) == 0
    assert {p.name for p in out.iterdir()} == {"p1.svg", "p1_heads.svg", "p1.npz", "position_similarity.svg"}
    sizes = []
    for dpi in ("50", "100"):
        assert explain.main([*command, "--dpi", dpi]) == 0
        assert "done already" not in capsys.readouterr().err
        with Image.open(out / "p1.png") as opened:
            sizes.append(opened.size)
    np.testing.assert_allclose(sizes[1], 2 * np.array(sizes[0]), atol=2)
    assert explain.main([*command, "--dpi", "100"]) == 0
    assert "1 of 1 are done already" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [["--dpi", "5"], ["--format", "jpg"], ["--scale", "mine"]])
def test_wrong_options_of_figures_are_one_line(saved, tmp_path, capsys, flags):
    with pytest.raises(SystemExit) as stop:
        explain.main([saved, "--position", "--out", str(tmp_path / "out"), *flags])
    assert stop.value.code == 2
    assert flags[0] in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_colours_are_drawn_as_they_are_and_the_compared_patch_is_outlined(model):
    colours = np.zeros((1, 2, 3, 3))
    colours[0, 0, :, 0] = 1  # red over black
    explainer = Explainer(
        model, ModelCard(model.config, NAMES), ("pca", "similarity"), MethodOptions(patches=((1, 2),))
    )
    results = {"pca": colours, "similarity": RNG.normal(size=(1, 2, 3)), "targets": np.array([0])}
    results |= {"probabilities": np.array([0.55, 0.28, 0.17], np.float32)}
    _, pca, similarity = [axes for axes in draw_figures(explainer, IMAGE, results, "own")[""].axes if axes.get_title()]
    drawn = pca.images[0].get_array()
    np.testing.assert_allclose(drawn[0], np.tile([1, 0, 0], (24, 1)), atol=1e-6)
    np.testing.assert_allclose(drawn[-1], np.zeros((24, 3)), atol=1e-6)
    assert not pca.patches
    assert {patch.get_bbox().bounds for patch in similarity.patches} == {(15.5, 7.5, 8, 8)}


def test_a_table_of_heads_alone_has_the_method_as_its_title(model):
    explainer = Explainer(model, ModelCard(model.config, NAMES), ("attention_distance",), MethodOptions())
    values = np.arange(4.0).reshape(1, 2, 2)
    results = {"attention_distance": values, "targets": np.array([0])}
    results |= {"probabilities": np.array([0.55, 0.28, 0.17], np.float32)}
    figures = draw_figures(explainer, IMAGE, results, "own")
    assert list(figures) == ["_attention_distance"]
    figure = figures["_attention_distance"]
    assert figure.get_suptitle() == "p1.png\nPredicted: cat (55 %)\nAttention distance of every head"
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), values[0])
    assert [axes.get_ylabel() for axes in figure.axes] == ["layer", "pixels"]
    figure.canvas.draw()
    assert_texts_apart(figure)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--method", "similarity", "--patch", "2,0"], "no patch 2,0: the grid has 2 rows and 3 columns, from 0,0"),
        (["--method", "similarity", "--patch", "1"], "--patch 1: a patch is ROW,COLUMN"),
        (["--method", "pca", "--evaluate", "--masks", "."], "--method pca: gives colours, which have no order"),
        (
            ["--method", "attention_distance", "--evaluate", "--masks", "."],
            "--method attention_distance: is a table of heads",
        ),
    ],
)
def test_wrong_options_of_feature_maps_are_one_line(saved, pictures, tmp_path, capsys, monkeypatch, flags, message):
    monkeypatch.chdir(pictures / "masks")
    command = [saved, str(pictures / "images" / "p1.png"), "--out", str(tmp_path / "out")]
    assert explain.main([*command, *flags]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
