"""Localization scores against scikit-learn, and for maps whose score is known."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, jaccard_score

from vit_jax import InputError, pointing_game, segmentation_scores


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
        pixels = valid[i] if with_valid else np.ones_like(mask[i])
        h, m = heat[i][pixels], mask[i][pixels]
        predicted = h > h.mean()
        assert float(scores.iou[i]) == pytest.approx(jaccard_score(m, predicted, average="macro"), abs=1e-6)
        assert float(scores.pixel_accuracy[i]) == pytest.approx((predicted == m).mean(), abs=1e-6)
        assert float(scores.average_precision[i]) == pytest.approx(average_precision_score(m, h), abs=1e-6)


def test_pointing_and_perfect_maps():
    mask = np.zeros((2, 6, 5), bool)
    mask[:, 2:4, 1:3] = True
    heat = mask.astype(np.float32)
    heat[1] = 1 - heat[1]
    np.testing.assert_array_equal(pointing_game(heat, mask), [1, 0])
    np.testing.assert_array_equal(pointing_game(heat, mask, mask), [1, 1])  # only the object's pixels are valid
    scores = segmentation_scores(heat, mask)
    np.testing.assert_allclose([s[0] for s in scores], 1)
    assert float(scores.iou[1]) == 0
    with pytest.raises(InputError, match="does not fit a mask"):
        pointing_game(heat[:, :5], mask)
