"""A page in a real browser: what it shows is what the model computes, and it asks for nothing."""

import base64
import io
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from tests.create import create
from tests.live_browser import OpenedPage, open_browser
from tests.vit_jax.viewer.models import GRID, PICTURE, make_pipeline
from vit_jax import VisionTransformer, ViTConfig, attention_rollout, forward_with_attention
from vit_jax.explain import MethodOptions, compile_method
from vit_jax.explain.heatmap import colour_table
from vit_jax.plot.colours import COLOURS
from vit_jax.viewer import write_page

pytestmark = pytest.mark.browser
PREFIX = 3  # [class] and two registers
forward = jax.jit(forward_with_attention, static_argnames=("layers",))


@pytest.fixture(scope="module")
def browser():
    with open_browser() as opened:
        yield opened


class Case:
    """A page on disk, and what its model computes."""

    def __init__(self, name, folder):
        self.pipeline = make_pipeline(name)
        self.page = write_page(folder / "page.html", self.pipeline, [PICTURE, PICTURE[::-1].copy()])
        self.path = folder / "page.html"
        self.images = self.pipeline.model.config.image_preprocess(PICTURE)[None]
        self.attention = np.asarray(forward(self.pipeline.model, self.images).attention[:, 0])


@pytest.fixture(scope="module")
def case(browser, tmp_path_factory):
    return Case("registers", tmp_path_factory.mktemp("page"))


@pytest.fixture
def opened(browser, case):
    page = OpenedPage(browser, case.path)
    yield page
    assert page.faults == []
    page.tab.close()


def read_row(shown):
    return np.concatenate([shown["prefix"], shown["values"]])


def test_a_hovered_patch_shows_its_row(opened, case):
    for layer, head, row, column in [(2, None, 1, 3), (0, 1, 3, 0), (1, 0, 0, 4)]:
        opened.tab.locator("#layer").fill(str(layer))
        opened.tab.get_by_role("button", name="Mean over heads" if head is None else f"Head {head}").click()
        opened.hover(row, column, *GRID)
        state, (shown,) = opened.read().values()
        weights = case.attention[layer, :, PREFIX + 5 * row + column]
        expected = weights.mean(axis=0) if head is None else weights[head]
        np.testing.assert_allclose(read_row(shown), expected, rtol=0, atol=case.page.error + 1e-6)
        assert state["token"] == PREFIX + 5 * row + column
        text = f"Attention of patch {row}, {column}, layer {layer}, {'mean over heads' if head is None else f'head {head}'}"
        assert opened.tab.locator("#caption").text_content() == text
        share = opened.tab.locator("#shares tr", has_text="all patches").text_content()
        assert float(re.search(r"[\d.]+", share).group()) == pytest.approx(100 * expected[PREFIX:].sum(), abs=0.2)
    stated = re.search(r"at most ([\d.e-]+\d)", opened.tab.locator("#footer").text_content()).group(1)
    assert float(stated) == pytest.approx(case.page.error, rel=0.06)


@pytest.mark.parametrize("name", ["bias in each block", "rotary"])
def test_other_positions_show_their_rows_too(browser, name, tmp_path):
    case = Case(name, tmp_path)
    opened = OpenedPage(browser, case.path, fragment="#a=attention.1.1")
    first = case.pipeline.model.config.num_prefix
    for token in (0, first, first + 13):
        opened.tab.evaluate(f"viewer.update({{ token: {token} }})")
        (shown,) = opened.read()["maps"]
        np.testing.assert_allclose(read_row(shown), case.attention[1, 1, token], rtol=0, atol=case.page.error + 1e-6)
    assert opened.faults == []
    opened.tab.close()


def test_the_colours_of_the_picture_are_the_values(opened, case):
    """Opaque where a value is highest: the colours there, and the picture where it is lowest."""
    opened.tab.evaluate("viewer.update({ token: 0, opacity: 1, smooth: false })")
    (shown,) = opened.read()["maps"]
    values = np.reshape(shown["values"], GRID)
    url = opened.tab.evaluate("document.getElementById('stage').toDataURL()")
    drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB"))
    for place, expected in [
        (np.unravel_index(values.argmax(), GRID), lambda row, column: 255 * colour_table(COLOURS)[255]),
        (np.unravel_index(values.argmin(), GRID), lambda row, column: PICTURE[8 * row + 4, 8 * column + 4]),
    ]:
        y, x = (
            int((index + 0.56) * side / count) for index, side, count in zip(place, drawn.shape, GRID, strict=False)
        )
        np.testing.assert_allclose(drawn[y, x], expected(*place), atol=1)


def test_rollout_similarity_and_maps(opened, case):
    model = case.pipeline.model
    opened.tab.get_by_role("button", name="Rollout").click()
    opened.hover(2, 2, *GRID)
    opened.wait_until("viewer.read().shown[0].heat.title.startsWith('Rollout from patch 2, 2')")
    (shown,) = opened.read()["maps"]
    expected = attention_rollout(jnp.asarray(case.attention[:, None]), query=PREFIX + 12)[0]
    np.testing.assert_allclose(read_row(shown), expected, rtol=0, atol=2 * case.page.error)
    opened.tab.get_by_role("button", name="Similarity").click()
    opened.tab.locator("#layer").fill("0")
    (shown,) = opened.read()["maps"]
    tokens = np.asarray(model.apply_final_norm(model.run(case.images, return_outputs=True).outputs[1]))[0]
    unit = tokens / np.linalg.norm(tokens, axis=1, keepdims=True)
    np.testing.assert_allclose(read_row(shown), unit @ unit[PREFIX + 12], rtol=0, atol=0.03)
    opened.tab.get_by_role("button", name="Explanation").click()
    opened.tab.locator("#thumbs button").nth(3).click()
    (shown,) = opened.read()["maps"]
    label = np.asarray(model(case.images))[0].argsort()[::-1][1]
    expected = compile_method("relevance", MethodOptions())(model, case.images, np.array([[label]]))
    np.testing.assert_allclose(shown["values"], expected.ravel(), rtol=1e-4, atol=1e-6)
    assert shown["title"].startswith(f"Relevance for {case.pipeline.class_names[label]} (p = 0.")


def test_keys_pins_and_the_address(browser, opened, case):
    tab = opened.tab
    tab.locator("#stage").focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "[", ".", ".", "s"):
        tab.keyboard.press(key)
    state = opened.read()["state"]
    assert (state["token"], state["pinned"], state["smooth"]) == (PREFIX + 6, True, True)
    assert state["sides"][0] == {"mode": "attention", "layer": 1, "head": 1, "map": 0}
    opened.hover(0, 0, *GRID)
    assert opened.read()["state"]["token"] == PREFIX + 6
    assert re.match(r"At patch 0, 0: \S+ weight$", tab.locator("#pointer").text_content())
    tab.keyboard.press("Space")
    opened.hover(0, 1, *GRID)
    assert opened.read()["state"]["token"] == PREFIX + 1
    tab.mouse.click(*[tab.locator("#stage").bounding_box()[side] + 3 for side in ("x", "y")])
    assert opened.read()["state"]["token"] == PREFIX
    opened.wait_until("location.hash.includes('token=3&')")
    assert "a=attention.1.1" in tab.evaluate("location.hash")
    again = OpenedPage(browser, case.path, fragment=tab.evaluate("location.hash"))
    assert again.read()["state"] == opened.read()["state"]
    again.tab.close()
    assert tab.locator("#announcement").text_content().startswith("Attention of patch")


def test_two_sides_and_another_picture(opened):
    tab = opened.tab
    tab.get_by_label("Compare A and B").check()
    tab.get_by_role("button", name="Similarity").click()
    tab.locator("#split").fill("30")
    state, maps = opened.read().values()
    assert [side["mode"] for side in state["sides"]] == ["attention", "similarity"]
    assert state["split"] == 0.3
    assert len(maps) == 2
    assert tab.locator("#caption-b").text_content().startswith("B: Similarity")
    before = maps[0]["values"]
    tab.locator("#picture").select_option("1")
    opened.wait_until("viewer.read().picture.info.name === 'image 1'")
    assert not np.allclose(opened.read()["maps"][0]["values"], before)
    with tab.expect_download() as download:
        tab.get_by_role("button", name="Save as PNG").click()
    assert download.value.suggested_filename.endswith(".png")


@pytest.mark.parametrize("width", [360, 768, 2560])
def test_nothing_is_wider_than_the_window(browser, case, width):
    opened = OpenedPage(browser, case.path, width=width)
    assert opened.tab.evaluate("document.documentElement.scrollWidth") <= width
    assert opened.tab.locator("#stage").bounding_box()["width"] > 0.5 * min(width, 700)
    assert opened.faults == []
    opened.tab.close()


@pytest.mark.slow
def test_577_tokens_are_fast(browser, tmp_path):
    """The least of twelve hovers, from the change of the state to the last thumbnail. Depth does not matter."""
    config = ViTConfig(image_size=(384, 384), depth=2, num_classes=0, mlp_dim=64)
    write_page(tmp_path / "page.html", create(VisionTransformer, config), np.tile(PICTURE, (4, 4, 1)))
    opened = OpenedPage(browser, tmp_path / "page.html")
    times = opened.tab.evaluate(
        "[...Array(12).keys()].map(i => { const start = performance.now();"
        " viewer.update({ token: 40 * i + 3 }); viewer.draw(); return performance.now() - start })"
    )
    assert min(times) < 50  # other tests run at the same time
    opened.tab.close()
