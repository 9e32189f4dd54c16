"""The bootstrap interval of the mAP, against scikit-learn on the drawn images."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from vit_jax.train import bootstrap
from vit_jax.train.bootstrap import precision_interval, resampled_precisions
from vit_jax.train.objective import average_precisions, mean_average_precision


def make_images(count, *, noise=1.0, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.random((count, 3)) < (0.3, 0.5, 0.1)
    logits = np.round(labels + noise * rng.standard_normal(labels.shape), 1).astype(np.float32)  # with equal scores
    return labels, logits


def test_a_draw_has_the_precisions_of_its_images():
    labels, logits = make_images(40)
    rng = np.random.default_rng(1)
    draws = rng.integers(0, 40, (5, 40))
    counts = np.stack([np.bincount(draw, minlength=40) for draw in draws])
    values = resampled_precisions(labels, logits, counts)
    for row, draw in zip(values, draws, strict=True):
        for label in range(3):
            expected = average_precision_score(labels[draw, label], logits[draw, label])
            assert row[label] == pytest.approx(expected, rel=1e-12)  # float64 rounding
    np.testing.assert_allclose(
        resampled_precisions(labels, logits, np.ones((1, 40), np.int64))[0], average_precisions(labels, logits), 1e-12
    )


def test_a_class_without_images_in_a_draw_does_not_count():
    labels, logits = make_images(40)
    counts = np.ones((1, 40), np.int64)
    counts[0, labels[:, 2]] = 0
    assert np.isnan(resampled_precisions(labels, logits, counts)[0, 2])


def test_the_interval_covers_the_true_value_and_shrinks_with_more_images():
    truth = mean_average_precision(*make_images(50_000, seed=9))
    (few_low, few_high), (low, high) = (precision_interval(*make_images(count)) for count in (300, 4800))
    assert few_low < truth < few_high
    assert low < truth < high
    assert (few_high - few_low) / (high - low) == pytest.approx(4, rel=0.3)  # of 16 times the images


def test_blocks_of_draws_give_one_result(monkeypatch):
    images = make_images(50)
    whole = precision_interval(*images)
    monkeypatch.setattr(bootstrap, "BLOCK", 50 * 7)
    assert precision_interval(*images) == whole
    assert precision_interval(*images, seed=1) != whole


def test_perfect_scores_and_images_without_labels():
    labels, logits = make_images(60, noise=0.0)
    assert precision_interval(labels, logits) == (1.0, 1.0)
    assert precision_interval(np.zeros((4, 2), bool), np.zeros((4, 2), np.float32)) is None
