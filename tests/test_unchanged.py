"""Behaviour recorded before the modules moved (tests/golden/behaviour.npz): every family, training, captions, flags.

Bitwise equality depends on the processor, so the stored samples are compared within bounds; on the machine that
recorded, `python -m tests.golden.behaviour compare tests/golden/behaviour.npz` compares to the bit.
"""

import os
import subprocess
import sys

import pytest

import tests.reference as reference
from tests.golden import behaviour, behaviour_record

pytestmark = pytest.mark.slow

RECORD = behaviour_record.read_record(reference.GOLDEN / "behaviour.npz")
FLOOR = 1e-3  # gradients that are zero in exact arithmetic are rounding noise: relative to nothing
FLOAT64 = 1e-11
# Name part -> bound relative to the array's largest value; the first that matches counts.
BOUNDS = {
    # A step in bfloat16 rounds to 3 digits.
    "bfloat16/totals": 1e-2,
    "bfloat16": 5e-2,
    # Adam divides by the gradient's size: where that is noise (key biases), five steps of 1e-3 may go either way.
    "train_float64/": 1e-4,  # its images are augmented in float32
    "caption_train_float64/": 1e-9,
    "train": 2e-2,
    # Masks, probabilities and pixels are float32 by design.
    "maps/rise": 1e-5,
    "surgery/": 1e-5,
    "data/": 1e-5,
}


def find_bound(name):
    if name.startswith(("train", "caption_train")) and "/totals" in name and "bfloat16" not in name:
        return 1e-4
    return next((bound for part, bound in BOUNDS.items() if part in name), FLOAT64)


def differs(name, recorded, value):
    equal = behaviour_record.is_equal(name, recorded, value)
    return not (equal or behaviour_record.largest_difference(name, recorded, value, floor=FLOOR) <= find_bound(name))


def test_all_behaviour_is_as_recorded():
    """Run the tests below in a process with the flags of the record: with others the pets augmentation differs."""
    environment = os.environ | {"XLA_FLAGS": behaviour_record.XLA_FLAGS}
    command = [sys.executable, "-m", "pytest", "-m", "slow", "-k", "group", "-p", "no:cacheprovider", __file__]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout
    assert f"{len(behaviour.GROUPS)} passed" in done.stdout


@pytest.mark.skipif(
    os.environ["XLA_FLAGS"] != behaviour_record.XLA_FLAGS, reason="run by the test above, with other flags"
)
@pytest.mark.parametrize("group", behaviour.GROUPS)
def test_a_group_is_as_recorded(group):
    expected = {name: recorded for name, recorded in RECORD.items() if behaviour.group_of(name) == group}
    assert expected
    results = behaviour.compute(group)
    missing = [name for name in expected if name not in results]
    different = {
        name: behaviour_record.largest_difference(name, recorded, results[name])
        for name, recorded in expected.items()
        if name in results and not name.startswith(behaviour_record.WORDING) and differs(name, recorded, results[name])
    }
    assert not missing
    assert not different
