"""Logits as probabilities and labels, of one label for each image and of sets of labels."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, softmax

from tests.create import create
from vit_jax import CONFIGS, InputError, VisionTransformer, ViTConfig, perturbation_auc, rise
from vit_jax.explain.faithfulness import removal_curves
from vit_jax.prediction import is_predicted, predicted_labels, probabilities

ONE = replace(CONFIGS["Pico_8"], num_classes=3)
SETS = replace(ONE, task="multi_label")
LOGITS = np.array([[2.0, 1.0, -1.0], [-3.0, -1.0, -2.0]])


def test_probabilities_are_the_softmax_or_sigmoids(x64):
    np.testing.assert_allclose(probabilities(ONE, LOGITS), softmax(LOGITS, axis=1), rtol=1e-12)
    np.testing.assert_allclose(probabilities(SETS, LOGITS), expit(LOGITS), rtol=1e-12)


def test_labels_of_images():
    values = [np.asarray(probabilities(config, LOGITS)) for config in (ONE, SETS)]
    assert [predicted_labels(ONE, row) for row in values[0]] == [[0], [1]]
    assert [predicted_labels(SETS, row) for row in values[1]] == [[0, 1], []]
    classes = np.array([1, 1])
    assert is_predicted(ONE, jnp.asarray(LOGITS), classes).tolist() == [False, True]
    assert is_predicted(SETS, jnp.asarray(LOGITS), classes).tolist() == [True, False]


def test_an_unknown_task_is_refused():
    with pytest.raises(InputError, match="unknown task 'multi': one of single_label, multi_label"):
        ViTConfig(task="multi")


def test_explanations_follow_the_task():
    """RISE weighs its masks, and faithfulness its patches, by the probability of the target alone."""
    model = create(VisionTransformer, SETS)
    images = np.random.RandomState(0).uniform(-1, 1, (2, 24, 24, 3)).astype(np.float32)
    targets = np.array([2, 0], np.int32)
    logits = np.asarray(model(images))
    curves = removal_curves(model, images, np.ones((2, 9), np.float32), targets, best_first=True)
    np.testing.assert_allclose(curves.probability[:, 0], expit(logits[[0, 1], targets]), rtol=1e-5)
    np.testing.assert_array_equal(curves.correct[:, 0], logits[[0, 1], targets] > 0)
    assert np.isfinite(perturbation_auc(model, images, np.ones((2, 9), np.float32), targets).positive).all()
    maps = rise(model, images, targets, num_masks=64, keep=0.999)  # nearly all masks keep everything
    np.testing.assert_allclose(np.asarray(maps).mean(axis=(1, 2)), expit(logits[[0, 1], targets]), rtol=0.05)
