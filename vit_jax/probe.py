"""Probes of a backbone: how well its pooled features tell classes apart, without training the backbone.

k-NN as in DINO (https://arxiv.org/abs/2104.14294): the neighbours by cosine similarity s vote with exp(s / 0.07).
A linear probe is a logistic regression on standardized features; cross-validation on the training part chooses its L2
penalty. scikit-learn does both.
"""

import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

TEMPERATURE = 0.07  # of the votes
NEIGHBORS = 20
PENALTIES = tuple(
    float(c) for c in np.logspace(-5, 2, 8)
)  # of the linear probe: scikit-learn's C, the inverse strength
FOLDS = 5
MAX_STEPS = 1000

Features = Float[np.ndarray, "n d"]
Labels = Int[np.ndarray, " n"]


class Probe(NamedTuple):
    """A fitted probe. predict: features [n, D] -> labels [n]. description: the probe and its chosen settings."""

    predict: Callable[[Features], Labels]
    description: str


def fit_knn(features: Features, labels: Labels, *, neighbors: int = NEIGHBORS) -> Probe:
    """Return the weighted k-nearest-neighbour classifier of these features; k is at most their number."""
    from sklearn.neighbors import KNeighborsClassifier

    count = min(neighbors, len(labels))
    options: dict[str, object] = dict(metric="cosine", algorithm="brute")
    classifier = KNeighborsClassifier(count, weights=lambda distance: np.exp(-distance / TEMPERATURE), **options)
    return Probe(classifier.fit(features, labels).predict, f"k-NN (k = {count}, cosine similarity)")


def fit_linear(features: Features, labels: Labels) -> Probe:
    """Return the linear classifier of these features. Classes of a single image leave the penalty at its default, 1."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=MAX_STEPS))
    folds = min(FOLDS, int(np.unique(labels, return_counts=True)[1].min()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of weak penalties, which then do not win
        if folds > 1:
            splits = StratifiedKFold(folds, shuffle=True, random_state=0)
            search = GridSearchCV(classifier, {"logisticregression__C": PENALTIES}, cv=splits).fit(features, labels)
            classifier = search.best_estimator_
        else:
            classifier.fit(features, labels)
    return Probe(classifier.predict, f"linear probe (C = {classifier[-1].C:g})")


def accuracy_interval(correct: int, count: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of an accuracy, from the number of correct predictions among `count` >= 1."""
    from scipy.stats import binomtest

    interval = binomtest(correct, count).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)
