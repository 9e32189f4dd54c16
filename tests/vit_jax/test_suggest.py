"""Names that resemble a mistyped one."""

import pytest

from vit_jax import CONFIGS, InputError
from vit_jax.explain import METHODS
from vit_jax.suggest import describe_unknown, did_you_mean, find_similar
from weights_convert import load_pretrained


def test_the_closest_names_come_first_whatever_their_case():
    assert find_similar("ROLOUT", METHODS)[0] == "rollout"
    assert find_similar("b_16_imagenet", CONFIGS)[0] == "B_16_imagenet1k"
    assert len(find_similar("B_1", [f"B_{number}" for number in range(10, 20)])) == 3


def test_nothing_is_suggested_for_a_name_that_resembles_none():
    assert find_similar("zebra", METHODS) == []
    assert did_you_mean("zebra", METHODS) == ""
    assert describe_unknown("method", "zebra", ["flow", "rise"], more=", or all") == (
        "unknown method 'zebra': one of flow, rise, or all"
    )


def test_a_message_ends_in_the_suggestion():
    assert describe_unknown("method", "flaw", ["flow", "rise"]) == (
        "unknown method 'flaw': one of flow, rise; did you mean flow?"
    )
    with pytest.raises(InputError, match="did you mean B_16"):
        load_pretrained("B_61")
