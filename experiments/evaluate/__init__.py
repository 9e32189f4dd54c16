"""python -m experiments.evaluate: accuracy of a classifier, or scores of captions."""
