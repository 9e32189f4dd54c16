"""Losses of sets of labels and of weighted classes against torch and by hand; the balanced sampler."""

import jax.numpy as jnp
import numpy as np
import pytest

from tests.optional import torch
from vit_jax import InputError
from vit_jax.data.balance import balanced_indices
from vit_jax.data.dataset import Split
from vit_jax.train.classify import cross_entropy, sigmoid_cross_entropy
from vit_jax.train.objective import (
    average_precisions,
    balanced_weights,
    choose_objective,
    mean_average_precision,
    positive_weights,
)

RANDOM = np.random.RandomState(0)
LOGITS = RANDOM.normal(0, 3, (6, 4))
SETS = RANDOM.rand(6, 4) < 0.4
LABELS = np.array([0, 1, 3, 3, 2, 0], np.int32)
CLASS_WEIGHTS = (0.5, 2.0, 1.0, 3.0)


def split_of(labels):
    return Split([str(i) for i in range(len(labels))], labels, lambda i: None)


def rows(values):
    """Return the values and a row of weight 0, which must count for nothing."""
    return jnp.asarray(np.concatenate([values, values[:1]]))


WEIGHTS = jnp.array([1.0] * 6 + [0.0])


def test_weighted_cross_entropy_is_torchs(x64):
    loss = cross_entropy(rows(LOGITS), rows(LABELS), WEIGHTS, class_weights=CLASS_WEIGHTS)
    theirs = torch.nn.functional.cross_entropy(
        torch.tensor(LOGITS), torch.tensor(LABELS).long(), weight=torch.tensor(CLASS_WEIGHTS, dtype=torch.float64)
    )
    assert float(loss.total / loss.divisor) == pytest.approx(theirs.item(), rel=1e-12)
    plain = cross_entropy(rows(LOGITS), rows(LABELS), WEIGHTS)
    assert [float(x) for x in loss.totals] == [float(x) for x in plain.totals]
    assert float(plain.divisor) == 6


@pytest.mark.parametrize("class_weights", [None, CLASS_WEIGHTS])
def test_sigmoid_cross_entropy_is_torchs(class_weights, x64):
    loss = sigmoid_cross_entropy(rows(LOGITS), rows(SETS), WEIGHTS, class_weights=class_weights)
    factors = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float64)
    theirs = torch.nn.functional.binary_cross_entropy_with_logits(
        torch.tensor(LOGITS), torch.tensor(SETS).double(), pos_weight=factors
    )
    assert float(loss.total / loss.divisor) == pytest.approx(theirs.item(), rel=1e-12)
    assert float(loss.totals.correct) == pytest.approx(((LOGITS > 0) == SETS).mean(axis=1).sum())
    smooth = sigmoid_cross_entropy(rows(LOGITS), rows(SETS), WEIGHTS, label_smoothing=0.2)
    mixed = sigmoid_cross_entropy(rows(LOGITS), rows(SETS), WEIGHTS, shares=rows(SETS * 0.8 + 0.1))
    assert float(smooth.total) == pytest.approx(float(mixed.total), rel=1e-12)


def test_weights_of_classes_by_hand():
    split = split_of(np.array([0, 0, 0, 0, 0, 2], np.int32))
    np.testing.assert_allclose(balanced_weights(split, 3), [6 / 15, 0, 6 / 3])
    hot = np.array([[1, 0], [1, 0], [1, 1], [0, 0]], bool)
    np.testing.assert_allclose(positive_weights(split_of(hot)), [1 / 3, 3])


def test_average_precision_by_hand():
    labels = np.array([[1, 0, 0], [0, 0, 1], [1, 0, 0], [0, 0, 1]], bool)
    logits = np.array([[3.0, 0, 1], [2, 0, 4], [1, 0, 3], [0, 0, 2]])
    np.testing.assert_allclose(average_precisions(labels, logits), [(1 + 2 / 3) / 2, np.nan, (1 + 2 / 3) / 2])
    assert mean_average_precision(labels, logits) == pytest.approx(5 / 6)
    with pytest.raises(InputError, match="no image has a label"):
        mean_average_precision(np.zeros((2, 3), bool), np.zeros((2, 3)))


def test_the_objective_follows_the_labels_and_the_balance():
    one, many = split_of(LABELS), split_of(SETS)
    assert choose_objective(one, 4, "none")[::3] == (cross_entropy, "val_accuracy")
    assert choose_objective(many, 4, "sampler")[::3] == (sigmoid_cross_entropy, "val_map")
    weighted = choose_objective(one, 4, "weights")
    assert weighted.loss.keywords == {"class_weights": tuple(balanced_weights(one, 4).tolist())}
    assert weighted.eval_loss is cross_entropy


def test_the_sampler_draws_every_class_equally_often():
    split = split_of(np.repeat([0, 1, 3], [50, 9, 3]).astype(np.int32))
    drawn = [balanced_indices(split, seed=5, epoch=epoch) for epoch in range(3)]
    for indices in drawn:
        counts = np.bincount(split.labels[indices], minlength=4)
        assert len(indices) == 62
        assert sorted(counts.tolist()) == [0, 20, 21, 21]
        times = np.bincount(indices, minlength=62)
        assert times[:50].max() == 1  # of a large class no image comes twice
        assert set(times[50:59].tolist()) <= {2, 3}
        assert set(times[59:].tolist()) <= {6, 7}
    np.testing.assert_array_equal(drawn[1], balanced_indices(split, seed=5, epoch=1))
    assert not np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], balanced_indices(split, seed=6, epoch=0))
