"""caption --html: the page of captioned pictures, in a browser and as a file, and wrong calls of it."""

import json
import re

import jax
import numpy as np
import pytest
from PIL import Image

import caption
from experiments.caption.__main__ import main
from tests.experiments.caption.inputs import LENGTH
from tests.live_browser import OpenedPage, open_browser


@pytest.fixture(scope="module")
def page(saved, pictures, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "page.html"
    images = [str(pictures / f"p{index}.png") for index in (1, 0)]
    flags = ["--weights", saved, "--html", str(path), "--beams", "3", "--n-best", "2"]
    assert main([*images, *flags]) == 0
    return path


@pytest.fixture(scope="module")
def expected(model, tokenizer, pictures):
    """Return the captions of the first picture, and its words' attention in layer 0, head 1."""
    pixels = model.config.preprocess(Image.open(pictures / "p1.png").convert("RGB"))[None]
    mask = np.ones(pixels.shape[:3], bool)
    generated = caption.generate(
        model, pixels, mask, max_length=LENGTH, num_beams=3, n_best=2, start=tokenizer.start, end=tokenizer.end
    )
    tokens = generated.tokens[0, :1, : int(generated.lengths[0, 0])]
    output = jax.jit(caption.forward_with_attention)(model, pixels, mask, tokens, tokens >= 0)
    words = caption.word_attention(output, tokens[0].tolist(), tokenizer, layer=0, head=1)
    return generated, words


def test_the_page_has_words_and_beams(page, expected, tokenizer, capsys):
    (generated, words), text = expected, page.read_text()
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL).group(1))
    assert (data["kind"], data["title"]) == ("caption", "Captions of tiny")
    first, second = data["pictures"]
    assert (first["name"], second["name"]) == ("p1.png", "p0.png")
    assert first["prefix"] == [word for word, _ in words]
    assert [text for text, _ in first["predictions"]] == [
        tokenizer.decode(tokens[:length]) for tokens, length in zip(generated.tokens[0], generated.lengths[0], strict=True)
    ]  # fmt: skip
    np.testing.assert_allclose([value for _, value in first["predictions"]], generated.log_probs[0], rtol=1e-4)
    assert (first["rows"], first["columns"]) == words[0][1].shape != (second["rows"], second["columns"])


@pytest.mark.browser
def test_a_hovered_word_shows_its_map(page, expected):
    _, words = expected
    with open_browser() as browser:
        opened = OpenedPage(browser, page)
        opened.tab.locator("#layer").fill("0")
        opened.tab.get_by_role("button", name="Head 1").click()
        for index, (word, heat) in enumerate(words):
            opened.tab.locator("#tokens button").nth(index).hover()
            (shown,) = opened.read()["maps"]
            assert shown["title"] == f"Attention of {word}, layer 0, head 1"
            np.testing.assert_allclose(shown["values"], heat.ravel(), rtol=0, atol=2e-5)
        best = opened.tab.locator("#predictions tr").first.text_content()
        assert re.search(r"-\d+\.\d\d$", best)
        opened.tab.locator("#stage").focus()
        opened.tab.keyboard.press("ArrowLeft")
        opened.tab.keyboard.press("2")  # no rollout of words
        state = opened.read()["state"]
        assert (state["token"], state["sides"][0]["mode"]) == (max(0, len(words) - 2), "attention")
        opened.tab.locator("#picture").select_option("1")
        opened.wait_until("viewer.read().picture.info.name === 'p0.png'")
        assert opened.faults == []


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "no --out: give a folder to write to, or --html FILE"),
        (["--html", "p0.png"], "p0.png: this command reads it"),
        (["--html", "."], "is a folder; name an .html file"),
    ],
    ids=str,
)
def test_wrong_calls_are_one_line(flags, message, saved, pictures, tmp_path, monkeypatch, capsys):
    (tmp_path / "p0.png").write_bytes((pictures / "p0.png").read_bytes())
    monkeypatch.chdir(tmp_path)
    assert main(["p0.png", "--weights", saved, *flags]) == 2
    assert message in capsys.readouterr().err.strip()
    assert [path.name for path in tmp_path.iterdir()] == ["p0.png"]
