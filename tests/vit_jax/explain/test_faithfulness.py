"""Faithfulness against plain loops over torch's answers, scikit-learn's scores, and maps whose score is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, jaccard_score

import tests.reference as reference
from vit_jax import InputError
from vit_jax.explain import faithfulness
from vit_jax.explain.faithfulness import (
    baseline_images,
    centred_map,
    insertion_deletion,
    perturbation_auc,
    pointing_game,
    random_map,
    removal_curves,
    segmentation_scores,
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


@pytest.mark.parametrize("best_first", [True, False])
def test_removal_by_hand(theirs, model, images, maps, best_first):
    """One patch after the other painted over in numpy, torch asked each time."""
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


def test_areas_are_those_of_the_curves(model, images, maps):
    best, worst = (removal_curves(model, images, maps, TARGETS, best_first=b, baseline="blur") for b in (True, False))
    scores = insertion_deletion(model, images, maps, TARGETS)
    np.testing.assert_allclose(scores.deletion, np.trapezoid(best.probability, best.fractions, axis=1), rtol=1e-5)
    inserted = worst.probability[:, ::-1]  # nothing inserted first
    np.testing.assert_allclose(scores.insertion, np.trapezoid(inserted, best.fractions, axis=1), rtol=1e-5)
    predicted = np.asarray(jax.jit(lambda m, x: m(x))(model, images)).argmax(axis=1)
    areas = perturbation_auc(model, images, maps, predicted, baseline="zero")
    by_curve = removal_curves(model, images, maps, predicted, best_first=True, baseline="zero").correct[:, 1:-1]
    np.testing.assert_allclose(areas.positive, np.trapezoid(by_curve, dx=0.125, axis=1), atol=1e-6)
    # Whatever is removed, the two orders meet where the map is turned round.
    turned = perturbation_auc(model, images, -maps, predicted, baseline="zero")
    np.testing.assert_allclose(turned.positive, areas.negative, atol=1e-6)


def test_baselines(images):
    np.testing.assert_allclose(baseline_images(images, "mean")[1, 5, 7], images[1].mean(axis=(0, 1)), atol=1e-6)
    assert not np.asarray(baseline_images(images, "zero")).any()
    blurred = np.asarray(baseline_images(images, "blur"))
    assert blurred.std() < images.std() / 2
    flat = np.full((1, 8, 8, 3), 0.3, np.float32)
    np.testing.assert_allclose(baseline_images(flat, "blur"), flat, atol=1e-6)
    with pytest.raises(InputError, match="unknown baseline 'black': one of mean, blur, zero"):
        baseline_images(images, "black")


def random_case(seed, ties=False):
    rng = np.random.default_rng(seed)
    heat = rng.normal(size=(3, 9, 7)).astype(np.float32)
    return heat.round(1) if ties else heat, rng.random((3, 9, 7)) < 0.4, rng.random((3, 9, 7)) < 0.8


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("with_valid", [False, True])
def test_segmentation_against_scikit_learn(ties, with_valid):
    heat, mask, valid = random_case(1, ties)
    scores = segmentation_scores(heat, mask, valid if with_valid else None)
    for i in range(3):
        counts = valid[i] if with_valid else np.ones_like(mask[i])
        h, m = heat[i][counts], mask[i][counts]
        said = h > h.mean()
        assert float(scores.iou[i]) == pytest.approx(jaccard_score(m, said, average="macro"), abs=1e-6)
        assert float(scores.pixel_accuracy[i]) == pytest.approx((said == m).mean(), abs=1e-6)
        assert float(scores.average_precision[i]) == pytest.approx(average_precision_score(m, h), abs=1e-6)


def test_pointing_and_perfect_maps():
    mask = np.zeros((2, 6, 5), bool)
    mask[:, 2:4, 1:3] = True
    heat = mask.astype(np.float32)
    heat[1] = 1 - heat[1]
    np.testing.assert_array_equal(pointing_game(heat, mask), [1, 0])
    np.testing.assert_array_equal(pointing_game(heat, mask, mask), [1, 1])  # only the object's pixels count
    scores = segmentation_scores(heat, mask)
    np.testing.assert_allclose([s[0] for s in scores], 1)
    assert float(scores.iou[1]) == 0
    with pytest.raises(InputError, match="does not fit a mask"):
        pointing_game(heat[:, :5], mask)


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
    assert jnp.asarray(faithfulness.area(jnp.ones((2, 3)), jnp.array([0.0, 0.5, 1.0]))).tolist() == [1, 1]
