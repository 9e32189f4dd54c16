"""Weights that are trained on keep their head only for the same classes."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from flax import nnx

from vit_jax import CONFIGS, VisionTransformer
from vit_jax.checkpoint import to_arrays
from vit_jax.train.head import fit_head, with_task

OLD = ("ant", "bee", "cat")
IMAGES = np.random.RandomState(0).uniform(-1, 1, (2, 24, 24, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def model():
    model = VisionTransformer(replace(CONFIGS["Pico_8"], num_classes=3), rngs=nnx.Rngs(0))
    noise = np.random.RandomState(1)
    return jax.tree.map(lambda x: x + noise.normal(0, 0.1, x.shape).astype(x.dtype), model)


def test_the_same_names_keep_the_head(model):
    fitted = fit_head(model, OLD, OLD)
    assert fitted.note == ""
    jax.tree.map(np.testing.assert_array_equal, fitted.model, model)


def test_another_order_permutes_the_outputs(model):
    fitted = fit_head(model, OLD, ("cat", "ant", "bee"))
    np.testing.assert_allclose(fitted.model(IMAGES), model(IMAGES)[:, np.array([2, 0, 1])], rtol=1e-6)
    assert fitted.note == "head: that of the weights, its classes in the order of the data"


@pytest.mark.parametrize("new", [("ant", "bee", "dog"), ("ant", "bee"), ("a", "b", "c", "d")])
def test_other_names_start_a_new_head(new, model):
    fitted = fit_head(model, OLD, new)
    assert fitted.model(IMAGES).shape == (2, len(new))
    np.testing.assert_array_equal(fitted.model(IMAGES), 0)
    assert fitted.note.startswith("head: new, ")
    kept = {name: array for name, array in to_arrays(model).items() if not name.startswith("head.")}
    for name, array in kept.items():
        np.testing.assert_array_equal(to_arrays(fitted.model)[name], array)


def test_without_names_the_number_of_classes_decides(model):
    fitted = fit_head(model, (), OLD)
    np.testing.assert_array_equal(fitted.model(IMAGES), model(IMAGES))
    assert "do not name them" in fitted.note


def test_another_task_starts_a_new_head(model):
    """A softmax head says nothing about each class alone, so its sigmoid would mean nothing."""
    fitted = fit_head(model, OLD, OLD, task="multi_label")
    assert fitted.note == "head: new, because that of the model is for images with one label"
    assert fitted.model.config.task == "multi_label"
    assert not np.asarray(to_arrays(fitted.model)["head.kernel"]).any()
    again = fit_head(with_task(model, "multi_label"), OLD, ("cat", "ant", "bee"), task="multi_label")
    assert again.note == "head: that of the weights, its classes in the order of the data"
    back = fit_head(with_task(model, "multi_label"), OLD, OLD)
    assert "images with a set of labels" in back.note
    assert back.model.config == model.config
    other = fit_head(model, OLD, ("ant", "bee"), task="multi_label")
    assert (other.model.config.task, other.model.config.num_classes) == ("multi_label", 2)
