"""The benchmarks as a user runs them, on the smallest models: tables, files, the same captions, and what they refuse."""

import json
from dataclasses import replace

import numpy as np
import pytest

from caption import CONFIGS
from experiments import benchmark, benchmark_caption, benchmark_vit
from experiments.recipe import Recipe
from experiments.timing import ratio_table
from vit_jax import CONFIGS as VIT_CONFIGS
from vit_jax.layers import Layers

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


@pytest.mark.parametrize("train", [False, True])
def test_a_vit_beside_the_originals(train, tmp_path, capsys):
    """All give the same numbers, the losses of training too; shares of the matrix rate are told."""
    small = ["vit", "--model", "Nano_6", "--batch-size", "2", "--rounds", "2", "--against", "torch"]
    assert benchmark.main([*small, "--out", str(tmp_path), *(["--train"] if train else [])]) == 0
    printed = capsys.readouterr().out
    assert printed == (tmp_path / "benchmark_vit.md").read_text()
    stored = json.loads((tmp_path / "benchmark_vit.json").read_text())
    assert list(stored["seconds"]) == ["here", "pytorch_pretrained_vit", "Hugging Face, SDPA", "matrix product"]
    assert stored["flops"] > 2 * 208_842 * 16
    assert "images/s" in printed


def test_the_steps_that_are_timed_learn_alike():
    config = replace(VIT_CONFIGS["Nano_6"], num_classes=4)
    model = benchmark_vit.made_model(config)
    rng = np.random.default_rng(0)
    images, labels = rng.uniform(-1, 1, (4, 24, 24, 3)).astype(np.float32), np.array([0, 1, 2, 3], np.int32)
    recipe = Recipe(model="Nano_6", epochs=1, learning_rate=1e-3)
    ours = benchmark_vit.own_step(model, images, labels, recipe, Layers(scan=True))
    sums = np.diff([0.0, *(float(ours()) for _ in range(4))]) / 4
    rule = {"lr": 1e-3, "weight_decay": recipe.weight_decay}
    for peer in benchmark_vit.peers_of(model).values():
        theirs = benchmark_vit._training(peer, images, labels, rule)
        np.testing.assert_allclose(sums, [theirs() for _ in range(4)], rtol=2e-3)
    assert sums[-1] < 0.9 * sums[0]


def test_other_logits_are_no_comparison():
    with pytest.raises(benchmark_vit.InputError, match="peer gives other logits than ours, by"):
        benchmark_vit.check_same(np.array([[1.0, 2.0]]), {"peer": lambda: np.array([[1.0, 3.0]])})


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
