"""Figures have the panels and titles that they should, at 150 dots an inch, with no text over other text."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from tests.figures import assert_texts_apart
from vit_jax import ImagePreprocess, InputError, Preprocess
from vit_jax.plot import (
    FigureFormat,
    HeatScale,
    Panel,
    arrange_in_rows,
    as_pixels,
    blend_heat,
    colour_heat,
    fit_scale,
    format_labels,
    format_map_title,
    format_prediction,
    plot_attention,
    plot_classes,
    plot_heads,
    plot_layers,
    plot_methods,
    plot_panels,
    plot_position_similarity,
    save_figure,
)
from vit_jax.plot.text import wrap_title

RNG = np.random.default_rng(0)
WIDE, TALL = RNG.uniform(size=(40, 90, 3)), RNG.uniform(size=(120, 50, 3))
FIGURES = {
    "attention": lambda image: plot_attention(image, RNG.uniform(size=(3, 4)), title="cat 0.93"),
    "heads": lambda image: plot_heads(image, RNG.uniform(size=(12, 3, 4)), title="a title of $1 and $2"),
    "layers": lambda image: plot_layers(image, RNG.uniform(size=(24, 3, 4)), title="two\nlines"),
    "methods": lambda image: plot_methods(
        image, {name: RNG.uniform(size=(3, 4)) for name in ("relevance", "integrated_gradients", "rollout")}
    ),
    "classes": lambda image: plot_classes(
        image,
        {f"staffordshire_bull_terrier_of_a_long_name_{i} 0.12": RNG.uniform(size=(3, 4)) for i in range(7)},
        title="a_very_long_name_of_a_picture_that_somebody_once_gave_to_their_photograph.jpg: american_bulldog 0.123",
    ),
    "positions": lambda image: plot_position_similarity(RNG.uniform(-1, 1, (5, 9, 5, 9)), title="position embeddings"),
    "many positions": lambda image: plot_position_similarity(RNG.uniform(-1, 1, (24, 24, 24, 24))),
}


@pytest.mark.parametrize("image", [WIDE, TALL], ids=["wide", "tall"])
@pytest.mark.parametrize("name", FIGURES)
def test_no_text_lies_over_other_text_or_past_the_edge(name, image, tmp_path):
    figure = FIGURES[name](image)
    save_figure(figure, tmp_path / "f.png")
    with Image.open(tmp_path / "f.png") as opened:
        np.testing.assert_allclose(opened.size, 150 * figure.get_size_inches(), atol=1)
    assert_texts_apart(figure)


def test_panels():
    assert [len(FIGURES[name](WIDE).axes) for name in ("attention", "heads", "layers")] == [3, 16, 26]
    figure = plot_heads(WIDE, np.zeros((3, 2, 2)))
    assert [axes.get_title() for axes in figure.axes][:4] == ["image", "head 0", "head 1", "head 2"]
    with pytest.raises(InputError, match="no panel"):
        plot_panels(WIDE, [])
    plain = plot_panels(WIDE, [[Panel("image", None), None]], colour_bar=False)
    np.testing.assert_allclose(plain.axes[0].images[0].get_array(), WIDE)


def test_a_cell_of_the_similarity_is_that_patchs_map():
    similarity = RNG.uniform(-1, 1, (2, 3, 2, 3))
    mosaic = plot_position_similarity(similarity).axes[0].images[0].get_array()
    assert mosaic.shape == (5, 11)
    np.testing.assert_allclose(mosaic[3:5, 8:11], similarity[1, 2])
    assert np.isnan(np.ma.filled(mosaic, np.nan)[2]).all()


@pytest.mark.parametrize("size", [(60, 100), (100, 60)])
def test_the_view_is_what_the_model_sees(size):
    """A picture cut to its view and squashed is the picture resized and cut, up to resampling."""
    y, x = np.mgrid[: size[0], : size[1]]
    image = Image.fromarray(np.stack([2 * x, 2 * y, x + y], axis=-1).astype(np.uint8))
    preprocess = ImagePreprocess((20, 24), Preprocess(crop=0.8))
    seen = ImagePreprocess((20, 24)).resize(preprocess.view(image)).astype(float)
    assert np.abs(seen - preprocess.resize(image)).max() < 8  # of 255, on a ramp of up to 8 a pixel
    assert ImagePreprocess((20, 24)).view(image) is image


def test_a_map_without_information_is_labelled(tmp_path):
    """The image is shown as it is, rounding and NaN included, with the reason across it."""
    nearly = np.array([[1 / 3, np.nextafter(np.float32(1 / 3), np.float32(1))]], np.float32)
    maps = {
        "noise": RNG.uniform(size=(3, 2)),
        "gradcam": np.zeros((3, 2)),
        "flow": np.full((3, 2), np.nan),
        "rollout": nearly,
    }
    figure = plot_methods(TALL, maps, title="caf\udce9.png")
    assert figure.get_suptitle() == "caf\ufffd.png"
    panels = {axes.get_title(): axes for axes in figure.axes if axes.get_title()}
    labels = {name: [text.get_text() for text in axes.texts] for name, axes in panels.items()}
    assert labels == {
        "image": [], "noise": [], "gradcam": ["all zero:\nno information"], "flow": ["not finite:\nno information"],
        "rollout": ["constant:\nno information"],
    }  # fmt: skip
    for name in ("gradcam", "flow", "rollout"):
        np.testing.assert_allclose(panels[name].get_images()[0].get_array(), TALL, atol=1e-6)
    save_figure(figure, tmp_path / "figure.png")
    assert_texts_apart(figure)


def test_opacity_follows_the_heat():
    """Where a map is lowest the photograph is unchanged; the top has the map's colour, at the given opacity."""
    heat = np.array([[0.0, 1.0], [2.0, 4.0]])
    colours = colour_heat(heat, fit_scale([heat]), 0.8)
    np.testing.assert_allclose(colours[..., 3], [[0, 0.2], [0.4, 0.8]])
    np.testing.assert_allclose(colours[1, 1, :3], [0.940015, 0.975158, 0.131326], atol=1e-6)  # plasma's last colour
    picture = RNG.uniform(size=(2, 2, 3))
    shown = blend_heat(picture, heat, fit_scale([heat]), 0.8)
    np.testing.assert_allclose(shown[0, 0], picture[0, 0])
    np.testing.assert_allclose(shown[1, 1], 0.2 * picture[1, 1] + 0.8 * colours[1, 1, :3])
    with pytest.raises(InputError, match="opacity"):
        colour_heat(heat, fit_scale([heat]), 1.5)


def test_signed_maps_have_a_symmetric_scale_with_a_transparent_zero():
    heat = np.array([[-1.0, 0.0, 2.0, 4.0]])
    scale = fit_scale([heat], is_signed=True)
    assert (scale.low, scale.high) == (-4, 4)
    red, blue = (colour_heat(np.array([sign * 3.0]), scale)[0] for sign in (1, -1))
    assert red[0] > red[2]
    assert blue[2] > blue[0]
    np.testing.assert_allclose(colour_heat(heat, scale, 1.0)[0, :, 3], [0.25, 0, 0.5, 1])
    with pytest.raises(InputError, match="no colour scale"):
        HeatScale(-1.0, 2.0, is_signed=True)


def shown_labels(figure):
    """Return the label and tick texts of the colour bars."""
    bars = [axes for axes in figure.axes if axes.get_xlabel()]
    return {axes.get_xlabel(): [text.get_text() for text in axes.get_xticklabels()] for axes in bars}


def test_a_shared_scale_shows_which_map_is_stronger():
    maps = np.stack([np.linspace(0, 1, 6).reshape(2, 3), np.linspace(0, 4, 6).reshape(2, 3)])
    own, shared = (plot_heads(np.zeros((2, 3, 3)), maps, scale=scale) for scale in ("own", "shared"))
    assert shown_labels(own) == {"each map on its own scale": ["lowest", "highest"]}
    assert shown_labels(shared) == {"attention weight": ["0", "1", "2", "3", "4"]}
    weak, strong = ([axes.images[0].get_array() for axes in figure.axes[1:3]] for figure in (own, shared))
    np.testing.assert_allclose(weak[0], weak[1])
    np.testing.assert_allclose(strong[1], weak[1])
    assert strong[0].max() < 0.5 * strong[1].max()
    with pytest.raises(InputError, match="no scale 'mine'"):
        plot_heads(np.zeros((2, 3, 3)), maps, scale="mine")


def test_signed_and_unsigned_maps_have_a_bar_each(tmp_path):
    heat = RNG.normal(size=(3, 4))
    maps = {"rollout": np.abs(heat), "attention": heat**2, "a": heat, "b": -heat}
    figure = plot_methods(WIDE, maps, signed=("a", "b"))
    label = "each map on its own scale"
    bars = [[t.get_text() for t in axes.get_xticklabels()] for axes in figure.axes if axes.get_xlabel() == label]
    assert sorted(bars) == [["lowest", "highest"], ["negative", "0", "positive"]]
    save_figure(figure, tmp_path / "f.png")
    assert_texts_apart(figure)
    assert not shown_labels(plot_methods(WIDE, {"zero": np.zeros((2, 2))}))


@pytest.mark.parametrize(("count", "lengths"), [(1, [1]), (5, [5]), (6, [3, 3]), (7, [4, 3]), (9, [3, 3, 3]),
                                                (12, [4, 4, 4]), (13, [5, 5, 3]), (25, [5] * 5)])  # fmt: skip
def test_only_the_last_row_of_a_grid_may_be_shorter(count, lengths):
    rows = arrange_in_rows([Panel(str(i), None) for i in range(count)])
    assert [len(row) for row in rows] == lengths
    assert [panel.title for row in rows for panel in row] == [str(i) for i in range(count)]


def test_pictures_are_pil_uint8_or_floats_in_the_unit_range():
    bytes_ = RNG.integers(0, 256, (4, 6, 3), np.uint8)
    for image in (bytes_, Image.fromarray(bytes_), bytes_ / 255, jnp.asarray(bytes_ / 255, "bfloat16")):
        np.testing.assert_allclose(as_pixels(image), bytes_ / 255, atol=4e-3 if hasattr(image, "device") else 1e-6)
    grey = bytes_[..., :1]
    for image in (grey, grey[..., 0], grey / 255, grey[..., 0] / 255, Image.fromarray(grey[..., 0])):
        np.testing.assert_allclose(as_pixels(image), np.repeat(grey, 3, axis=2) / 255, atol=1e-6)
    np.testing.assert_array_equal(as_pixels(Image.new("RGBA", (1, 1), (0, 0, 0, 0))), [[[1, 1, 1]]])
    np.testing.assert_allclose(plot_panels(bytes_, [[Panel("", None)]]).axes[0].images[0].get_array(), bytes_ / 255)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.full((2, 2, 3), 255.0), r"floats from 255 to 255: they must lie in \[0, 1\]"),
        (np.full((2, 2, 3), -0.1), "undo a normalisation"),
        (np.full((2, 2, 3), np.nan), "floats from nan to nan"),
        (np.zeros((2, 2, 3), np.int64), "an image array is uint8"),
        (np.zeros((2, 2, 4)), "a picture has the shape"),
        (Image.new("I;16", (2, 2)), "open it with vit_jax.data.open_rgb"),
        ([[0.5]], "not an image: list"),
    ],
)
def test_other_pictures_are_refused(image, message):
    with pytest.raises(InputError, match=message):
        plot_attention(image, np.ones((2, 2)))


def test_a_map_has_rows_and_columns():
    with pytest.raises(InputError, match=r"the map 'head 0' has the shape \(4,\)"):
        plot_panels(WIDE, [[Panel("head 0", np.arange(4.0))]])


def test_a_large_picture_is_drawn_at_640_pixels():
    shown = plot_panels(np.ones((1000, 2000, 3)), [[Panel("", None)]]).axes[0].images[0].get_array()
    assert shown.shape == (320, 640, 3)


@pytest.mark.parametrize(("suffix", "start"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_formats_are_reproducible(suffix, start, tmp_path):
    for name in ("a", "b"):
        save_figure(plot_attention(WIDE, np.eye(3)), tmp_path / f"{name}.{suffix}")
    first = (tmp_path / f"a.{suffix}").read_bytes()
    assert first.startswith(start)
    assert first == (tmp_path / f"b.{suffix}").read_bytes()


def test_dpi_scales_the_pixels_and_other_formats_are_refused(tmp_path):
    figure = plot_attention(WIDE, np.eye(3))
    save_figure(figure, tmp_path / "f.png", dpi=300)
    with Image.open(tmp_path / "f.png") as opened:
        np.testing.assert_allclose(opened.size, 300 * figure.get_size_inches(), atol=1)
    with pytest.raises(InputError, match=r"f.jpg: a figure is a .png, .pdf or .svg"):
        save_figure(figure, tmp_path / "f.jpg")
    with pytest.raises(InputError, match="dpi"):
        FigureFormat(dpi=3)
    assert [path.name for path in tmp_path.iterdir()] == ["f.png"]


def test_titles_name_class_probability_layer_and_head():
    assert format_prediction("american_bulldog", 0.551) == "Predicted: american_bulldog (55 %)"
    assert format_prediction("cat", 0.9999) == "Predicted: cat (> 99 %)"
    assert format_prediction("cat", 0.001) == format_prediction("cat", 0.005) == "Predicted: cat (< 1 %)"
    assert format_labels([("crane", 0.9), ("crane", 0.8)]) == "Predicted: crane (90 %), crane (80 %)"
    assert format_labels([("sky", 0.97), ("sea", 0.81)]) == "Predicted: sky (97 %), sea (81 %)"
    assert format_labels([]) == "Predicted: no label"
    assert format_map_title("Relevance", target="Bengal", probability=0.281) == "Relevance for Bengal (p = 0.28)"
    assert format_map_title("Attention", layer=11, head=2) == "Attention, layer 11, head 2"
    title = format_map_title("Grad-CAM", layer=0, target="cat", probability=0.001)
    assert title == "Grad-CAM, layer 0 for cat (p < 0.01)"
    assert format_map_title("Relevance", target="cat", probability=0.999) == "Relevance for cat (p > 0.99)"


def test_no_line_of_a_title_begins_with_a_number_or_sign():
    assert wrap_title("Relevance for Bengal (p = 0.28)", 1.5) == "Relevance for Bengal\n(p = 0.28)"
    assert wrap_title("Attention, layer 11, head 2", 1.65) == "Attention, layer 11,\nhead 2"
    assert wrap_title("a_rather_long_name (p < 0.01)", 1.3) == "a_rather_long_name\n(p < 0.01)"


def test_characters_that_the_font_lacks_are_no_warnings(tmp_path):
    figure = plot_panels(np.zeros((4, 4, 3), np.float32), [[Panel("猫", None)]], title="tab\tand 犬")
    save_figure(figure, tmp_path / "a.png", dpi=30)  # warnings are errors
    assert (tmp_path / "a.png").is_file()
