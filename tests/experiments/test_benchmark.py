"""The benchmarks as a user runs them, on the smallest models: tables, files, the same captions, and what they refuse."""

import json

import numpy as np
import pytest

from caption import CONFIGS
from experiments import benchmark, benchmark_caption
from experiments.timing import ratio_table

SMALL = ["caption", "--model", "mini", "--rounds", "2", "--batch", "2"]


def test_captions_beside_the_original(tmp_path, capsys):
    """Both write the same captions of the length asked for, whatever the model would like."""
    command = [*SMALL, "--lengths", "3", "5", "--against", "torch", "--out", str(tmp_path)]
    assert benchmark.main(command) == 0
    printed = capsys.readouterr().out
    assert printed == (tmp_path / "benchmark_caption.md").read_text()
    stored = json.loads((tmp_path / "benchmark_caption.json").read_text())
    programs = ["here, one image", "here, an image of a batch of 2", "CATR in torch, one image"]
    assert list(stored["seconds"]) == [f"{name}, {length} tokens" for length in (3, 5) for name in programs]
    assert all(len(seconds) == 2 for seconds in stored["seconds"].values())
    assert "5 tokens:" in printed
    assert "torch" in stored["torch"]


def test_different_captions_are_no_comparison():
    model = benchmark_caption.endless(CONFIGS["mini"])
    images = np.random.default_rng(0).uniform(-1, 1, (1, 64, 80, 3)).astype(np.float32)
    peer = benchmark_caption.peer_of(model, images)
    ours = np.asarray(benchmark_caption.written(model, images, 6))[0]
    np.testing.assert_array_equal(peer(6), ours)
    assert (ours[1:] != benchmark_caption.END).all()
    benchmark_caption.check_same(model, images, peer, 6)
    other = benchmark_caption.peer_of(model, images)
    with pytest.raises(benchmark_caption.InputError, match="captions differ from token 2 on"):
        benchmark_caption.check_same(model, images, lambda length: other(length) + np.arange(length) // 2, 6)


def test_ratios_are_taken_within_a_round():
    table = ratio_table({"a": np.array([1.0, 2.0, 4.0]), "b": np.array([2.0, 2.0, 12.0])}, "a")
    assert table.splitlines()[0] == "| program | median s | times a | least | greatest |"
    assert table.splitlines()[-1] == "| b | 2.0000 | 2.00 | 1.00 | 3.00 |"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "required: what"),
        (["explain", "--model", "B_17"], "unknown model 'B_17'"),
        (["explain", "--lengths", "4"], "unrecognized arguments"),
        (["caption", "--model", "vit_b16"], "no captioner 'vit_b16' to measure: one of catr, scenes, mini"),
        ([*SMALL, "--lengths", "1"], "--lengths 1: between 2 and the model's 128 positions"),
        ([*SMALL, "--against", "jax"], "invalid choice"),
    ],
)
def test_what_it_refuses(flags, message, capsys):
    try:
        code = benchmark.main(flags)
    except SystemExit as stop:
        code = stop.code
    error = capsys.readouterr().err
    assert code == 2
    assert message in error
    assert len(error.strip().splitlines()) == 1
