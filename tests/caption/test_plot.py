"""The figure of a caption: the caption as title, a panel per word in order, no overlapping text."""

import numpy as np
import pytest
from PIL import Image

from caption.plot import plot_caption
from tests.figures import assert_texts_apart
from vit_jax import InputError
from vit_jax.plot import save_figure

RNG = np.random.default_rng(0)
CAPTION = "a skateboarder in a red-and-white t-shirt , with $ 5 and $ 6 , grinding an uncharacteristically long ramp ."
WORDS = [*CAPTION.split(), "[SEP]"]


def make_words(count):
    return [(word, RNG.uniform(size=(5, 7))) for word in [*WORDS[: count - 1], WORDS[-1]]]


WIDE, TALL, LARGE = (60, 80, 3), (120, 70, 3), (1500, 900, 3)


@pytest.mark.parametrize(
    ("count", "shape"), [(count, shape) for count in (1, 5, 12, 20) for shape in (WIDE, TALL)] + [(5, LARGE)]
)
def test_texts_do_not_overlap_and_the_figure_fits_a_page(count, shape, tmp_path):
    image = RNG.integers(0, 256, shape, dtype=np.uint8)
    words = make_words(count)
    figure = plot_caption(image, words, " ".join(word for word, _ in words).capitalize())
    save_figure(figure, tmp_path / "f.png")
    with Image.open(tmp_path / "f.png") as opened:
        np.testing.assert_allclose(opened.size, 150 * figure.get_size_inches(), atol=1)
    width, height = figure.get_size_inches()
    assert width <= 8
    assert height <= 11
    assert_texts_apart(figure)
    assert not any(axes.title.get_parse_math() for axes in figure.axes if axes.images)  # "$ 5 and $" is not a formula


def test_panels_are_the_picture_and_the_words_in_order():
    image = RNG.integers(0, 256, (8, 10, 3), dtype=np.uint8)
    words = [("a", np.zeros((2, 2))), ("cat", np.eye(2)), ("[SEP]", np.ones((2, 2)))]
    figure = plot_caption(image, words, "A cat", alpha=0.25)
    shown = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in shown] == ["image", "a", "cat", "(end)"]
    assert figure.get_suptitle() == "A cat"
    picture = image / 255
    np.testing.assert_allclose(shown[0].images[0].get_array(), picture, atol=1e-6)
    np.testing.assert_allclose(shown[1].images[0].get_array(), picture, atol=1e-6)  # a map of zeros
    top = np.array([0.940015, 0.975158, 0.131326])  # plasma's highest colour
    corner = 0.75 * picture[0, 0] + 0.25 * top
    np.testing.assert_allclose(shown[2].images[0].get_array()[0, 0], corner, atol=1e-6)


def test_a_caption_without_words_is_refused():
    with pytest.raises(InputError, match="no words to draw"):
        plot_caption(np.zeros((4, 4, 3), np.uint8), [], "")
