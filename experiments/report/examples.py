"""Which validation images a report shows: confident predictions, right and wrong ones, of one label or several."""

from typing import NamedTuple

import numpy as np

from vit_jax import ViTConfig
from vit_jax.plot import format_percent
from vit_jax.prediction import predicted_labels, probabilities

Labels = tuple[int, ...]


class Example(NamedTuple):
    """The labels of an image, those that the model predicts, and the probability of its most probable class."""

    true: Labels
    predicted: Labels
    top: int
    probability: float

    @property
    def is_right(self) -> bool:
        """Whether all labels are predicted, and no other ones."""
        return set(self.true) == set(self.predicted)

    def describe(self, names: tuple[str, ...]) -> str:
        """Return the true and the predicted labels as a text."""
        true, predicted = (", ".join(names[i] for i in labels) or "nothing" for labels in (self.true, self.predicted))
        top = "" if self.predicted == (self.top,) else f"{names[self.top]} "
        return f"true {true}, predicted {predicted} ({top}{format_percent(self.probability)})"


def make_examples(config: ViTConfig, logits: np.ndarray, labels: np.ndarray) -> list[Example]:
    """Return the example of each image. logits: [n, C]. labels: [n], or sets of them [n, C]."""
    values = np.asarray(probabilities(config, logits))
    sets = [(int(label),) if labels.ndim == 1 else tuple(np.flatnonzero(label).tolist()) for label in labels]
    tops = values.argmax(axis=1)
    return [
        Example(true, tuple(predicted_labels(config, row)), int(top), float(row[top]))
        for true, row, top in zip(sets, values, tops, strict=True)
    ]


def select_examples(examples: list[Example], count: int) -> list[int]:
    """Return the indices of `count` right predictions, then of at most `count` wrong ones, most confident first.

    Right predictions of distinct labels come before second ones of the same.
    """
    order = sorted(range(len(examples)), key=lambda index: -examples[index].probability)
    right = [index for index in order if examples[index].is_right]
    wrong = [index for index in order if not examples[index].is_right]
    first: dict[Labels, int] = {}
    for index in right:
        first.setdefault(examples[index].true, index)
    distinct = list(first.values())
    repeated = [index for index in right if index not in distinct]
    return (distinct + repeated)[:count] + wrong[:count]
