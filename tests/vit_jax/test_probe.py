"""Probes against their formulas, and the interval of an accuracy against published numbers."""

import numpy as np
import pytest

from vit_jax.probe import accuracy_interval, fit_knn, fit_linear


def clusters(rng, count, *, spread=1.0, scale=1.0):
    """Return features [n, 8] around three centres, and their labels."""
    labels = rng.integers(0, 3, count)
    return (scale * (4 * np.eye(8)[labels] + spread * rng.standard_normal((count, 8)))).astype(np.float32), labels


def vote(features, labels, query, k):
    """Return the class with the most votes exp(s / 0.07) of the k vectors of the largest cosine similarity s."""
    similarity = features @ query / np.linalg.norm(features, axis=1) / np.linalg.norm(query)
    nearest = np.argsort(-similarity)[:k]
    return np.bincount(labels[nearest], np.exp(similarity[nearest] / 0.07), 3).argmax()


@pytest.mark.parametrize("k", [1, 4, 20])
def test_k_nearest_neighbours_vote_by_cosine_similarity(k):
    rng = np.random.default_rng(0)
    features, labels = clusters(rng, 60, spread=4.0)
    queries, _ = clusters(rng, 40, spread=4.0)
    probe = fit_knn(features, labels, neighbors=k)
    expected = [vote(features.astype(float), labels, query.astype(float), k) for query in queries]
    assert probe.predict(queries).tolist() == expected
    assert probe.predict(5 * queries).tolist() == expected  # lengths do not matter
    assert probe.description == f"k-NN (k = {k}, cosine similarity)"
    assert len(set(expected)) == 3


def test_there_are_no_more_neighbours_than_images():
    rng = np.random.default_rng(0)
    features, labels = clusters(rng, 7)
    assert fit_knn(features, labels).description == "k-NN (k = 7, cosine similarity)"


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_a_linear_probe_separates_what_a_plane_separates(scale):
    """Whatever the scale of the features: they are standardized."""
    rng = np.random.default_rng(0)
    (features, labels), (queries, expected) = clusters(rng, 90, scale=scale), clusters(rng, 60, scale=scale)
    assert (fit_linear(features, labels).predict(queries) == expected).mean() > 0.95
    shuffled = fit_linear(features, rng.permutation(labels))  # labels that the features do not tell: a strong penalty
    assert (shuffled.predict(queries) == expected).mean() < 0.8
    assert float(shuffled.description.split()[-1].rstrip(")")) < 0.1


def test_a_class_of_one_image_has_a_linear_probe():
    features, labels = np.eye(3, dtype=np.float32), np.array([0, 1, 2])
    probe = fit_linear(features, labels)
    assert probe.description == "linear probe (C = 1)"
    assert probe.predict(features).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("correct", "count", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_the_interval_is_wilsons(correct, count, low, high):
    """Source: Newcombe, Statistics in Medicine 17 (1998), table I, method 3."""
    np.testing.assert_allclose(accuracy_interval(correct, count), (low, high), atol=5e-5)
