"""Figures have the panels and titles that they should, at 150 dots an inch, with no text over other text."""

import numpy as np
import pytest
from PIL import Image

from tests.figures import assert_texts_apart
from vit_jax import ImagePreprocess, InputError, Preprocess
from vit_jax.plot import (
    Panel,
    plot_attention,
    plot_classes,
    plot_heads,
    plot_layers,
    plot_methods,
    plot_panels,
    plot_position_similarity,
    save_figure,
)

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
