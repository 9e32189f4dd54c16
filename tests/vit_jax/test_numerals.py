"""Numbers in flags, environment variables and files: ASCII digits only, in range, or one line that names the flag."""

import argparse

import pytest

from vit_jax import InputError, cli
from vit_jax.numerals import parse_float, parse_int
from vit_jax.train.distributed import ProcessOptions, initialize

NO_NUMBERS = [
    "",
    "x",
    "²",
    "٣",
    "1_000",
    " 1",
    "1 ",
    "0x10",
    "\uff11",
    "--1",
    "1e",
    "e5",
    ".",
    "nan",
    "inf",
    "1e999",
    "1,5",
]


@pytest.mark.parametrize("text", NO_NUMBERS)
def test_what_is_no_number(text):
    assert parse_int(text) is None
    assert parse_float(text) is None
    for parse in (cli.integer, cli.positive_int, cli.non_negative_int, cli.seed, cli.number, cli.fraction,
                  cli.non_negative, cli.image_size):  # fmt: skip
        with pytest.raises(argparse.ArgumentTypeError):
            parse(text)


def test_numbers():
    assert [parse_int(text) for text in ("0", "-3", "+7", "007", "9" * 18)] == [0, -3, 7, 7, 10**18 - 1]
    assert [parse_int(text) for text in ("1.0", "1e3", "9" * 19, "9" * 5000)] == [None] * 4
    assert [parse_float(text) for text in ("1", "-.5", "2.", "1e-3", "+1.5E2")] == [1, -0.5, 2, 0.001, 150]


@pytest.mark.parametrize(
    ("parse", "good", "bad"),
    [
        (cli.integer, {"-2": -2}, ["1.5"]),
        (cli.positive_int, {"3": 3}, ["0", "-1"]),
        (cli.non_negative_int, {"0": 0}, ["-1"]),
        (cli.seed, {"0": 0, "4294967295": 2**32 - 1}, ["-1", "4294967296", "9" * 30]),  # jax would take 2^32 as 0
        (cli.number, {"-1.5": -1.5}, []),
        (cli.fraction, {"0": 0.0, "0.5": 0.5}, ["1", "-0.1"]),
        (cli.non_negative, {"2.5": 2.5}, ["-1e-9"]),
        (cli.image_size, {"224": (224, 224), "32X48": (32, 48)}, ["0", "3x4x5", "-3", "3x", "²"]),
    ],
)
def test_ranges_of_flags(parse, good, bad):
    assert {text: parse(text) for text in good} == good
    for text in bad:
        with pytest.raises(argparse.ArgumentTypeError, match=r"is not a"):
            parse(text)


def test_a_clusters_variable_that_is_no_number(monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "²")
    with pytest.raises(InputError, match="environment variable SLURM_NTASKS is '²', not a whole number"):
        initialize(ProcessOptions())
