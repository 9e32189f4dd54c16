"""The classes of --target, by name or number."""

import pytest

from experiments.explain.targets import parse_targets
from vit_jax import (
    InputError,
    ModelCard,
    ViTConfig,
)

NAMED = ModelCard(ViTConfig(num_classes=6), ("cat", "dog, small", "cat,dog", "dog", "crane", "crane"))


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["dog, small"], [1]),
        (['cat,"dog, small"'], [0, 1]),
        (['"cat,dog"', "3"], [2, 3]),
        (["dog", "cat", "3"], [3, 0]),
        (["4"], [4]),
    ],
)
def test_targets_by_name_may_hold_commas(flags, expected):
    assert parse_targets(flags, NAMED) == expected


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["cat,dog"], "one class or 2"),
        (["crane"], "the classes 4, 5 have this name; give a number"),
        (["\u0663"], "no class"),
        ([""], "no class ''"),
    ],
)
def test_targets_that_may_mean_two_things_are_refused(flags, message):
    with pytest.raises(InputError, match=message):
        parse_targets(flags, NAMED)
