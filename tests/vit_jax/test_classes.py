"""Classes by name, number, or name by number."""

import numpy as np
import pytest

from vit_jax import InputError
from vit_jax.classes import find_class, name_class

PETS = ("Bengal", "Birman", "pug")


def test_a_class_by_name_or_number():
    assert find_class("Birman", PETS, 3) == find_class("1", PETS, 3) == find_class(np.int64(1), PETS, 3) == 1
    assert find_class("Cafe\u0301", ("tea", "Caf\u00e9"), 2) == 1  # looks alike
    assert find_class("2", ("2", "1", "0"), 3) == 0  # a name before a number
    assert find_class(2, ("2", "1", "0"), 3) == 2


def test_the_name_of_a_class_without_names_leads_back_to_it():
    assert name_class(4, ()) == "class 4"
    assert find_class(name_class(4, ()), (), 10) == 4


@pytest.mark.parametrize(
    ("target", "names", "message"),
    [
        (
            "bengol",
            PETS,
            "no class 'bengol': did you mean Bengal\\? Its classes are 0 to 2, or by name: Bengal, Birman",
        ),
        (3, PETS, "no class 3: .*classes are 0 to 2"),
        (1.0, PETS, "no class 1.0: classes"),
        ([1], PETS, "no class \\[1\\]: classes"),
        (-1, (), "no class -1: classes are 0 to 2$"),
        ("cat", ("cat", "dog", "cat"), "class cat: the classes 0, 2 have this name; give a number"),
    ],
)
def test_an_unknown_class_is_named_with_the_nearest(target, names, message):
    with pytest.raises(InputError, match=message):
        find_class(target, names, 3)
