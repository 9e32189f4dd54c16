"""What a page stores: attention to its stated error, within its bytes, and maps; and its file."""

import json
import re

import jax
import numpy as np
import pytest
from PIL import Image

from tests.vit_jax.viewer.models import CONFIGS, GRID, NAMES, PICTURE, make_pipeline
from vit_jax import InputError, forward_with_attention, patch_similarity
from vit_jax.explain import MethodOptions, compile_method
from vit_jax.position import relative_position_index
from vit_jax.viewer import show, write_page
from vit_jax.viewer.budget import BEST_ERROR, WORST_ERROR, store_layers
from vit_jax.viewer.coding import decode_arrays, encode_arrays
from vit_jax.viewer.factors import factor_scores, factor_similarities, quantize
from vit_jax.viewer.layers import LayerFactors, softmax

forward = jax.jit(forward_with_attention, static_argnames=("layers",))


def read_data(page):
    return json.loads(re.search(r'id="data">(.*?)</script>', page.html, re.DOTALL).group(1))


def read_attention(data, layer):
    """Return the attention [H, N, N] of a page's first picture, as the page computes it."""
    stored = decode_arrays(data["pictures"][0]["layers"][layer]["scores"])
    scores = np.einsum("jhm,jhn,hj->hmn", stored["left"].astype(float), stored["right"], stored["weights"])
    if data["biases"]:
        table = decode_arrays(data["biases"][min(layer, len(data["biases"]) - 1)])["table"]
        scores += table[relative_position_index(GRID)].transpose(2, 0, 1)
    return softmax(scores)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_attention_of_a_page_is_the_models(name):
    pipeline = make_pipeline(name)
    page = show(pipeline, PICTURE)
    images = pipeline.model.config.image_preprocess(PICTURE)[None]
    exact = np.asarray(forward(pipeline.model, images).attention[:, 0])
    stored = np.stack([read_attention(read_data(page), layer) for layer in range(3)])
    assert exact.max() > 0.3
    assert np.abs(stored - exact).max() == pytest.approx(page.error, abs=2e-6)
    assert page.error < 0.005


def test_a_page_has_the_similarities_maps_and_predictions():
    pipeline = make_pipeline("registers")
    data = read_data(show(pipeline, PICTURE, methods=["relevance", "pca", "rise"], targets=["cow & calf", 0],
                          options=MethodOptions(num_masks=4)))  # fmt: skip
    (picture,) = data["pictures"]
    images = pipeline.model.config.image_preprocess(PICTURE)[None]
    left = decode_arrays(picture["layers"][-1]["similarities"])
    cosines = (left["left"][:, 0].T * left["weights"][0]) @ left["left"][:, 0].astype(float)
    features = pipeline.model.features(images)
    np.testing.assert_allclose(cosines[3 + 7, 3:], patch_similarity(features, 7, num_prefix=3)[0], atol=0.03)
    (predictions,) = pipeline.predict(PICTURE)
    assert [name for name, _ in picture["predictions"]] == [name for name, _ in predictions]
    np.testing.assert_allclose([p for _, p in picture["predictions"]], [p for _, p in predictions], rtol=1e-5)
    maps, values = picture["maps"], decode_arrays(picture["mapValues"])
    assert [(each["method"], each["target"]) for each in maps] == [
        ("Relevance", NAMES[2]), ("Relevance", NAMES[0]), ("PCA of the features", ""), ("RISE", NAMES[2]), ("RISE", NAMES[0]),
    ]  # fmt: skip
    expected = compile_method("relevance", MethodOptions())(pipeline.model, images, np.array([[2, 0]]))
    np.testing.assert_allclose(values["map1"], expected[0, 1], rtol=1e-4, atol=1e-6)
    assert (values["map2"].shape, values["map3"].shape) == ((*GRID, 3), (16, 20))
    assert picture["prefix"] == ["[class]", "register 1", "register 2"]


def draw_layers(count, num_tokens=40):
    draw = np.random.default_rng(0)
    return [
        LayerFactors(
            factor_scores(*draw.normal(size=(2, num_tokens, 2, 8)).astype(np.float32)),
            factor_similarities(draw.normal(size=(num_tokens, 16)).astype(np.float32)),
        )
        for _ in range(count)
    ]


@pytest.mark.parametrize(("error", "reached"), [(0.1, 0.1), (0.01, 0.01), (1e-6, 5e-5)])
def test_quantized_scores_have_the_error_asked_for(error, reached):
    """In float64, up to a constant in each row. The last is finer than 16 bits allow."""
    queries, keys = np.random.default_rng(0).normal(size=(2, 50, 3, 8)).astype(np.float32)
    exact = np.einsum("nhk,mhk->hnm", queries, keys - keys.mean(axis=0)) / 8**0.5
    stored = quantize(factor_scores(queries, keys), error)
    product = np.einsum("jhm,jhn,hj->hmn", stored.left.astype(float), stored.right, stored.weights)
    assert (product - exact).std() == pytest.approx(reached, rel=0.25)


def test_precision_is_reduced_first_and_then_layers_are_left_out():
    layers = draw_layers(5)

    def size(stored):
        return sum(len(part["data"]) for each in stored for part in each.encoded.values())

    everything = store_layers(layers, None)
    best, worst = size(everything), size(store_layers(layers, 10**9))
    assert best == worst  # with enough bytes, the page is as exact as it can be
    fitting = store_layers(layers, int(0.7 * best))
    assert [each.layer for each in fitting] == [0, 1, 2, 3, 4]
    assert 0.6 * best < size(fitting) <= 0.71 * best
    few = store_layers(layers, int(0.3 * best))
    assert size(few) <= 0.31 * best
    assert [each.layer for each in few][-1] == 4
    assert len(few) < 5
    with pytest.raises(InputError, match=r"a layer takes 0\.0 MB of the page, and there are 0\.0 MB for a picture"):
        store_layers(layers, 100)
    assert BEST_ERROR < WORST_ERROR


def test_arrays_survive_the_text():
    arrays = {
        "a": np.array([[0, 127, -128, 128, -129, 32000, -32000]], np.int16),
        "b": np.float32([1.5, -np.inf]),
        "c": np.zeros((0, 3), np.int8),
    }
    decoded = decode_arrays(json.loads(json.dumps(encode_arrays(arrays))))
    for name, array in arrays.items():
        np.testing.assert_array_equal(decoded[name], array)
        assert decoded[name].dtype == array.dtype


def test_texts_do_not_become_markup(tmp_path):
    path = tmp_path / "<script>alert(1)<.png"
    Image.fromarray(PICTURE).save(path)
    page = write_page(tmp_path / "made" / "page.html", make_pipeline("registers"), path, title="</script>{{data}}&")
    text = (tmp_path / "made" / "page.html").read_text()
    assert text == page.html
    assert page.num_bytes == len(text.encode())
    assert "<title>&lt;/script&gt;{{data}}&amp;</title>" in text
    data = read_data(page)
    assert data["title"] == "</script>{{data}}&"
    assert data["pictures"][0]["name"] == path.name
    assert text.count("<script") == 2
    assert 'srcdoc="&lt;!doctype html' in page._repr_html_()
    assert 'sandbox="allow-scripts allow-downloads"' in page._repr_html_()


def test_wrong_requests_are_one_line(tmp_path, monkeypatch):
    pipeline, path = make_pipeline("registers"), tmp_path / "a.png"
    Image.fromarray(PICTURE).save(path)
    for options, message in [
        (dict(methods=["relevanse"]), "unknown method 'relevanse': one of"),
        (dict(targets=["dog"]), "no class 'dog'"),
        (dict(options=MethodOptions(layer=3)), "no layer 3"),
    ]:
        with pytest.raises(InputError, match=message):
            show(pipeline, path, **options)
    with pytest.raises(InputError, match="relevance: explains a class, and the model has no classification head"):
        show(make_pipeline("no class token"), path, methods=["relevance"])
    with pytest.raises(InputError, match="no classification head, and so no classes; leave the targets out"):
        show(make_pipeline("no class token"), path, targets=[0])
    with pytest.raises(InputError, match=r"a\.png: this command reads it"):
        write_page(path, pipeline, path)
    with pytest.raises(InputError, match=r"is a folder; name an \.html file"):
        write_page(tmp_path, pipeline, path)
    with pytest.raises(InputError, match="exists and is not a folder"):
        write_page(path / "page.html", pipeline, path)
    monkeypatch.setattr("vit_jax.viewer.page.PAGE_BYTES", 60_000)
    with pytest.raises(
        InputError, match=r"9 pictures take about 0 MB, too much for one page; give at most \d at a time"
    ):
        show(pipeline, [path] * 9)
    assert sorted(tmp_path.iterdir()) == [path]
