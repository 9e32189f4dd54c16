"""Pipeline: the numbers of the model and of the programs, from any kind of picture."""

import csv
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from experiments.predict import main as predict
from vit_jax import (
    CONFIGS,
    HeatMap,
    InputError,
    Pipeline,
    Preprocess,
    VisionTransformer,
    logit_lens,
    patch_pca,
    patch_similarity,
    relevance,
    save,
    to_grid,
)
from vit_jax.checkpoint import from_arrays, to_arrays
from vit_jax.data import CorruptImageError
from vit_jax.explain import MethodOptions, scale_to_colours

NAMES = tuple(f"kind {letter}" for letter in "abcdefghij")
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (40, 30, 3), np.uint8)


def make_model(**changes):
    config = replace(CONFIGS["Pico_8"], **({"preprocess": Preprocess(crop=0.9)} | changes))
    model = VisionTransformer(config, rngs=nnx.Rngs(0))
    arrays = {n: RNG.normal(0, 0.3, np.shape(a)).astype(np.float32) if n.startswith("head.") else a
              for n, a in to_arrays(model).items()}  # fmt: skip
    return from_arrays(config, arrays)


@pytest.fixture(scope="module")
def model():
    return make_model()


@pytest.fixture(scope="module")
def pipeline(model):
    return Pipeline(model, NAMES)


def test_predictions_are_those_of_the_model(pipeline, model):
    images = jnp.stack([model.config.image_preprocess(PIXELS), model.config.image_preprocess(PIXELS[::-1])])
    expected = np.asarray(jax.nn.softmax(model(images)))
    for row, predictions in zip(expected, pipeline.predict([PIXELS, PIXELS[::-1].copy()], top_k=3), strict=True):
        assert [name for name, _ in predictions] == [NAMES[label] for label in np.argsort(-row)[:3]]
        np.testing.assert_allclose([p for _, p in predictions], np.sort(row)[::-1][:3], rtol=1e-5)
    (everything,) = pipeline.predict(PIXELS, top_k=99)
    assert len(everything) == 10
    assert sum(prediction.probability for prediction in everything) == pytest.approx(1, abs=1e-6)


def test_predictions_are_those_of_the_program(pipeline, model, tmp_path):
    """Also of a 16-bit, a transparent and a turned picture."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.fromarray(PIXELS).save(folder / "a.png")
    Image.fromarray(RNG.integers(0, 65536, (40, 30), np.uint16)).save(folder / "b.png")
    Image.fromarray(RNG.integers(0, 256, (40, 30, 4), np.uint8), "RGBA").save(folder / "c.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PIXELS).save(folder / "d.jpg", exif=exif)
    save(model, tmp_path / "model", class_names=NAMES)
    assert predict([str(tmp_path / "model"), str(folder), str(tmp_path / "out.csv"), "--top-k", "2"]) == 0
    rows = list(csv.reader((tmp_path / "out.csv").read_text().splitlines()))[1:]
    for row, predictions in zip(rows, pipeline.predict(folder, top_k=2), strict=True):
        assert [row[1], row[3]] == [p.name for p in predictions]
        np.testing.assert_allclose([float(row[2]), float(row[4])], [p.probability for p in predictions], rtol=1e-5)


def test_one_picture_in_every_form_gives_one_answer(pipeline, tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(PIXELS).save(path)
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(PIXELS[::-1, ::-1]).save(tmp_path / "turned.png", exif=exif)
    expected = pipeline.features(path)
    assert expected.shape == (1, 32)
    turned = Image.open(tmp_path / "turned.png")
    for form in (str(path), Image.open(path), PIXELS, jnp.asarray(PIXELS), [path], PIXELS[None], turned):
        np.testing.assert_array_equal(pipeline.features(form), expected)


def test_many_pictures_come_in_batches(model):
    pictures = [RNG.integers(0, 256, (24, 24, 3), np.uint8) for _ in range(5)]
    together = Pipeline(model, batch_size=2).features(pictures)
    alone = np.concatenate([Pipeline(model).features(picture) for picture in pictures])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_a_heat_map_is_that_of_the_method(pipeline, model):
    image = model.config.image_preprocess(PIXELS)[None]
    heat = pipeline.heatmap(PIXELS, target="kind c")
    expected = to_grid(relevance(model, image, jnp.array([2])), (3, 3))[0]
    np.testing.assert_allclose(heat.values, expected, rtol=1e-4, atol=1e-7)
    assert heat.title == f"Relevance for kind c (p = {heat.probability:.2f})"
    assert heat.probability == pytest.approx(float(jax.nn.softmax(model(image))[0, 2]), abs=1e-6)
    best = pipeline.predict(PIXELS)[0][0]
    ((name, probability),) = heat.prediction
    assert name == pipeline.heatmap(PIXELS).target == best.name
    assert probability == pytest.approx(best.probability, abs=1e-6)
    # The shorter side, 30, is resized to 26 = floor(24 / 0.9), of which the model sees 24.
    assert heat.image.size == (28, 28)


def test_the_kind_of_a_map_is_stated(pipeline, model):
    for head in (1, -1):
        attention = pipeline.heatmap(PIXELS, "attention", options=MethodOptions(layer=-1, head=head))
        assert (attention.title, attention.target, attention.is_signed) == ("Attention, layer 1, head 1", "", False)
    assert attention.quantity == "Attention (weight)"
    assert pipeline.heatmap(PIXELS, "integrated_gradients").is_signed
    headless = Pipeline(make_model(num_classes=0)).heatmap(PIXELS, "rollout")
    assert (headless.title, headless.prediction) == ("Attention rollout", None)
    bands = Pipeline(make_model(in_channels=5, preprocess=Preprocess())).heatmap(np.zeros((24, 24, 5), np.uint8))
    assert bands.image_title == "image, bands 1-3 of 5"


def test_a_multi_label_model_predicts_a_set_of_labels():
    pipeline = Pipeline(make_model(task="multi_label"), NAMES)
    sets = pipeline.predict(PIXELS, top_k=10)[0]
    assert sum(p.probability for p in sets) != pytest.approx(1, abs=1e-3)
    heat = pipeline.heatmap(PIXELS)
    expected = [p for p in sets if p.probability > 0.5]
    assert 0 < len(expected) < 10
    assert [name for name, _ in heat.prediction] == [p.name for p in expected]
    assert heat.plot().get_suptitle().replace("\n", " ").count(" %)") == len(expected)


def test_a_heat_map_shows_itself(pipeline, tmp_path):
    heat = pipeline.heatmap(PIXELS)
    assert repr(heat) == f"HeatMap({heat.title!r}, 3x3)"
    assert heat._repr_png_().startswith(b"\x89PNG")
    assert 'alt="Relevance for kind' in heat._repr_html_()
    titles = [axes.get_title() for axes in heat.plot().axes if axes.get_title()]
    assert [title.replace("\n", " ") for title in titles] == ["image", heat.title]
    for name in ("map.png", "map.pdf", "map.svg"):
        heat.save(tmp_path / name)
        assert (tmp_path / name).stat().st_size > 1000
    with pytest.raises(InputError, match="\\.png, \\.pdf or \\.svg"):
        heat.save(tmp_path / "map.bmp")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: p.predict([]), "no images: the list is empty"),
        (lambda p: p.predict("nowhere.jpg"), "nowhere.jpg: no such file"),
        (lambda p: p.predict(PIXELS / 255), "uint8"),
        (lambda p: p.predict(Image.new("I;16", (9, 9))), "mode I;16 has no fixed range; open it with"),
        (lambda p: p.predict(Image.new("F", (9, 9))), "mode F has no fixed range"),
        (lambda p: p.predict(PIXELS, top_k=0), "top_k is at least 1"),
        (lambda p: p.heatmap([PIXELS, PIXELS]), "of one image, not of 2"),
        (lambda p: p.heatmap(PIXELS, "relevence"), "did you mean relevance"),
        (lambda p: p.predict(np.zeros((0, 8, 8, 3), np.uint8)), "no images: the array is empty"),
        (lambda p: p.predict(""), "no image: the path is empty"),
        (lambda p: Pipeline(p.model, batch_size=0), "batch_size is at least 1, not 0"),
        (lambda p: p.heatmap(PIXELS, target=True), "no class True"),
        (lambda p: Pipeline(make_model(class_token=False, pooling="map")).heatmap(PIXELS), "use integrated_gradients"),
        (lambda p: p.heatmap(PIXELS, target="kind k"), "no class 'kind k': did you mean kind "),
        (lambda p: p.heatmap(PIXELS, "attention", options=MethodOptions(layer=2)), "no layer 2"),
        (lambda p: Pipeline(p.model, NAMES[1:]), "9 class names for 10 classes"),
        (lambda p: Pipeline(make_model(num_classes=0)).predict(PIXELS), "no classification head"),
        (lambda p: Pipeline(make_model(num_classes=0)).heatmap(PIXELS), "no classification head"),
        (lambda p: Pipeline(make_model(num_classes=0)).heatmap(PIXELS, "rollout", 1), "no classification head"),
    ],
)
def test_wrong_input_is_one_line(pipeline, call, message):
    with pytest.raises(InputError, match=message) as caught:
        call(pipeline)
    assert "\n" not in str(caught.value)


def test_a_heat_map_without_information_says_so(pipeline):
    heat = HeatMap(np.zeros((3, 3), np.float32), Image.fromarray(PIXELS), "Relevance", target="kind a", probability=0.5)
    texts = [text.get_text() for axes in heat.plot().axes for text in axes.texts]
    assert any("no information" in text for text in texts)


def test_an_opened_file_that_is_cut_short_is_named_corrupt(pipeline, tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole[: len(whole) // 2])
    with Image.open(tmp_path / "a.png") as image, pytest.raises(CorruptImageError, match="not a readable image"):
        pipeline.predict(image)


def test_heat_maps_of_features(pipeline, model):
    image = model.config.image_preprocess(PIXELS)[None]
    features, prefix = model.features(image), model.config.num_prefix
    heat = pipeline.heatmap(PIXELS, "similarity", options=MethodOptions(patches=((0, 1), (2, 2))))
    expected = to_grid(patch_similarity(features, [1, 8], num_prefix=prefix), (3, 3))[0]
    np.testing.assert_allclose(heat.values, expected, atol=1e-5)
    assert (heat.quantity, heat.patches) == ("Similarity of the features (cosine)", ((0, 1), (2, 2)))
    norms = pipeline.heatmap(PIXELS, "token_norm", options=MethodOptions(layer=0))
    tokens = model.run(image, return_outputs=True).outputs[1][0, prefix:]
    np.testing.assert_allclose(norms.values.ravel(), jnp.linalg.norm(tokens, axis=-1), rtol=1e-5)
    assert norms.title == "Token norm, layer 0"
    lens = pipeline.heatmap(PIXELS, "logit_lens", target="kind c", options=MethodOptions(layer=0))
    shares = jax.nn.softmax(logit_lens(model, image)[1, 0, prefix:])
    np.testing.assert_allclose(lens.values.ravel(), shares[:, 2], rtol=1e-4)
    colours = pipeline.heatmap(PIXELS, "pca")
    scores = patch_pca(features, num_prefix=prefix)[0]
    np.testing.assert_allclose(colours.values.reshape(9, 3), scale_to_colours(scores), atol=1e-3)
    assert repr(colours) == "HeatMap('PCA of the features', 3x3)"
    assert colours.plot().axes
    with pytest.raises(InputError, match="no patch 3,0: the grid has 3 rows and 3 columns, from 0,0"):
        pipeline.heatmap(PIXELS, "similarity", options=MethodOptions(patches=((3, 0),)))
