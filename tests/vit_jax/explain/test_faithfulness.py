"""Faithfulness scores against plain loops over torch's predictions; the controls."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tests.reference as reference
from tests.optional import torch
from vit_jax import InputError
from vit_jax.explain.faithfulness import (
    area_under_curve,
    baseline_images,
    centred_map,
    insertion_deletion,
    perturbation_auc,
    random_map,
    removal_curves,
)
from weights_convert import convert

SIZE, CLASSES = (32, 24), 7
TARGETS = np.array([2, 5])


@pytest.fixture(scope="module")
def theirs():
    return reference.tiny_torch(SIZE, num_classes=CLASSES).float()


@pytest.fixture(scope="module")
def model(theirs):
    return convert(reference.state_arrays(theirs), image_size=SIZE, num_heads=3)


@pytest.fixture(scope="module")
def images():
    return reference.images(3, 2, *SIZE).astype(np.float32)


@pytest.fixture(scope="module")
def maps():
    return np.random.default_rng(0).uniform(size=(2, 12)).astype(np.float32)


@pytest.mark.parametrize("best_first", [pytest.param(True, marks=pytest.mark.slow), False])
def test_removal_against_a_loop(theirs, model, images, maps, best_first):
    """Overwrite one patch after the other in numpy, and predict with torch each time."""
    curves = removal_curves(model, images, maps, TARGETS, best_first=best_first, steps=4, baseline="mean")
    np.testing.assert_allclose(curves.fractions, [0, 0.25, 0.5, 0.75, 1])
    for i in range(2):
        order = np.argsort(-maps[i] if best_first else maps[i])
        for f, count in enumerate((0, 3, 6, 9, 12)):
            picture = images[i].copy()
            for patch in order[:count]:
                row, column = divmod(int(patch), 3)
                picture[8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = images[i].mean(axis=(0, 1))
            with torch.no_grad():
                logits = theirs(torch.from_numpy(picture.transpose(2, 0, 1)[None].copy()))[0]
            assert float(curves.probability[i, f]) == pytest.approx(float(logits.softmax(0)[TARGETS[i]]), abs=1e-5)
            assert float(curves.correct[i, f]) == float(logits.argmax() == TARGETS[i])


def test_areas_agree_with_the_curves(model, images, maps):
    best, worst = (removal_curves(model, images, maps, TARGETS, best_first=b, baseline="blur") for b in (True, False))
    scores = insertion_deletion(model, images, maps, TARGETS)
    np.testing.assert_allclose(scores.deletion, np.trapezoid(best.probability, best.fractions, axis=1), rtol=1e-5)
    inserted = worst.probability[:, ::-1]  # from nothing inserted to everything
    np.testing.assert_allclose(scores.insertion, np.trapezoid(inserted, best.fractions, axis=1), rtol=1e-5)
    predicted = np.asarray(jax.jit(lambda m, x: m(x))(model, images)).argmax(axis=1)
    areas = perturbation_auc(model, images, maps, predicted, baseline="zero")
    from_curve = removal_curves(model, images, maps, predicted, best_first=True, baseline="zero").correct[:, 1:-1]
    np.testing.assert_allclose(areas.positive, np.trapezoid(from_curve, dx=0.125, axis=1), atol=1e-6)
    # The negated map swaps the two orders.
    negated = perturbation_auc(model, images, -maps, predicted, baseline="zero")
    np.testing.assert_allclose(negated.positive, areas.negative, atol=1e-6)


def test_baselines(images):
    np.testing.assert_allclose(baseline_images(images, "mean")[1, 5, 7], images[1].mean(axis=(0, 1)), atol=1e-6)
    assert not np.asarray(baseline_images(images, "zero")).any()
    blurred = np.asarray(baseline_images(images, "blur"))
    assert blurred.std() < images.std() / 2
    flat = np.full((1, 8, 8, 3), 0.3, np.float32)
    np.testing.assert_allclose(baseline_images(flat, "blur"), flat, atol=1e-6)
    with pytest.raises(InputError, match="unknown baseline 'black': one of mean, blur, zero"):
        baseline_images(images, "black")


def test_controls():
    blob = np.asarray(centred_map(2, (5, 7))).reshape(2, 5, 7)
    assert np.unravel_index(blob[0].argmax(), (5, 7)) == (2, 3)
    np.testing.assert_allclose(blob[0], blob[0, ::-1, ::-1], rtol=1e-6)
    assert random_map(jax.random.key(0), 3, 8).shape == (3, 8)


def test_wrong_requests(model, images, maps):
    with pytest.raises(InputError, match=r"a map of shape \(2, 11\) does not fit a 4x3 grid"):
        insertion_deletion(model, images, maps[:, :11], TARGETS)
    with pytest.raises(InputError, match="steps must be at least 2"):
        perturbation_auc(model, images, maps, TARGETS, steps=1)
    with pytest.raises(InputError, match="unknown baseline"):
        perturbation_auc(model, images, maps, TARGETS, baseline="noise")
    assert jnp.asarray(area_under_curve(jnp.ones((2, 3)), jnp.array([0.0, 0.5, 1.0]))).tolist() == [1, 1]
