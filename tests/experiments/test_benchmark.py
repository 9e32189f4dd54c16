"""The benchmarks as a user runs them, on the smallest models: tables, files, the same captions, and what they refuse."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from caption import CONFIGS
from experiments.benchmark import __main__ as benchmark
from experiments.benchmark import caption as benchmark_caption
from experiments.benchmark import children, loading
from experiments.benchmark import vit as benchmark_vit
from experiments.benchmark.timing import Timed, alternating, ratio_table
from vit_jax import CONFIGS as VIT_CONFIGS

SMALL = ["caption", "--model", "mini", "--rounds", "2", "--batch", "2"]


@pytest.mark.slow
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


@pytest.mark.parametrize("train", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_vit_beside_the_originals(train, tmp_path, capsys):
    """Each in a process of its own; all give the same numbers, of training the loss; shares of the matrix rate are told."""
    small = [
        "vit",
        "--model",
        "Nano_6",
        "--batch-size",
        "2",
        "--rounds",
        "2",
        "--against",
        "torch",
        "--no-torch-compile",
    ]
    assert benchmark.main([*small, "--out", str(tmp_path), *(["--train"] if train else [])]) == 0
    printed = capsys.readouterr().out
    assert printed == (tmp_path / "benchmark_vit.md").read_text()
    stored = json.loads((tmp_path / "benchmark_vit.json").read_text())
    assert list(stored["seconds"]) == ["here", "pytorch_pretrained_vit", "Hugging Face, SDPA"]
    assert len(stored["matrix"]) == 2
    assert "images/s" in printed
    assert Image.open(tmp_path / "benchmark_vit.png").width > 500


@pytest.mark.slow
def test_torch_compile_is_a_peer(capsys):
    small = ["vit", "--model", "Nano_6", "--batch-size", "2", "--rounds", "1", "--against", "torch"]
    assert benchmark.main(small) == 0
    assert "| the same, SDPA and torch.compile |" in capsys.readouterr().out


def setting(train: bool, **changes) -> benchmark_vit.Setting:
    config = replace(VIT_CONFIGS["Nano_6"], **changes)
    return benchmark_vit.Setting(config, 4, train, False, "float32")


def test_the_steps_that_are_timed_learn_alike():
    many = setting(True, num_classes=4)
    model = benchmark_vit.made_model(many.config)
    peers = [benchmark_vit.peer(many, name, model) for name in benchmark_vit.peer_names(many.config, compiled=False)]
    ours = benchmark_vit.own(many, model)
    sums = np.diff([0.0, *(float(ours()) for _ in range(4))]) / 4
    for peer in peers:
        np.testing.assert_allclose(sums, [peer() for _ in range(4)], rtol=2e-3)
    assert sums[-1] < sums[0]


def test_other_logits_are_no_comparison():
    name = benchmark_vit.PEERS[0]
    with pytest.raises(benchmark_vit.InputError, match=f"{name} gives other logits than ours, by"):
        benchmark_vit.check_same(setting(False), {"here": np.array([[1.0, 2.0]]), name: np.array([[1.0, 3.0]])})
    with pytest.raises(benchmark_vit.InputError, match="another loss than ours"):
        benchmark_vit.check_same(setting(True), {"here": np.array(8.0), name: 8.0})


@pytest.mark.parametrize("changes", [{}, {"pooling": "gap"}])
def test_operations_are_counted_as_the_compiler_counts_them(changes):
    """The products alone: the compiler's count, which has all else too, is a little more."""
    one = benchmark_vit.Setting(replace(VIT_CONFIGS["Ti_16"], **changes), 1, False, False, "float32")
    model = benchmark_vit.made_model(one.config)
    found = jax.jit(lambda m, x: m(x)).lower(model, jnp.asarray(one.images())).compile().cost_analysis()
    assert 0.9 * found["flops"] < benchmark_vit.flops_of(one) < found["flops"]


@pytest.mark.slow
def test_memory(tmp_path, capsys):
    small = ["memory", "--model", "Nano_6", "--batch-size", "2", "--rounds", "1", "--against", "torch", "--train"]
    assert benchmark.main([*small, "--no-torch-compile", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out == (tmp_path / "benchmark_memory.md").read_text()
    held = json.loads((tmp_path / "benchmark_memory.json").read_text())["bytes"]
    assert list(held) == ["here", "pytorch_pretrained_vit", "Hugging Face, SDPA"]
    assert all(4 * 4 * 200_000 < later <= 2e9 for [[_, later]] in held.values())  # weights, gradient and two moments


def hold(size: int):
    return lambda: (np.ones(size, np.uint8).sum(), children.peak())[1]


def test_what_a_process_held_at_most_is_seen():
    with children.Child(hold, 1000) as little, children.Child(hold, 300_000_000) as much:
        assert 280e6 < much() - little() < 320e6


def fail():
    raise ValueError("of no use")


def test_a_process_that_fails_says_why():
    with pytest.raises(children.InputError, match="a measuring process failed: ValueError: of no use"):
        children.Child(fail)


def test_scale(tmp_path, capsys):
    small = ["scale", "--model", "Nano_6", "--rounds", "1", "--image-sizes", "24", "48", "--batch-sizes", "1", "2"]
    assert benchmark.main([*small, "--depths", "1", "2", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out == (tmp_path / "benchmark_scale.md").read_text()
    counted = json.loads((tmp_path / "benchmark_scale.json").read_text())["flops"]
    assert counted["batch 2"] == 2 * counted["batch 1"]
    assert Image.open(tmp_path / "benchmark_scale.png").width > 500


def test_pictures_beside_a_dataloader(tmp_path, capsys):
    """Both give the same pixels, on one core and on all."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    loading.made_pictures(folder, 5)
    small = ["input", "--data", str(folder), "--image-size", "32", "--batch-size", "2", "--rounds", "1"]
    assert benchmark.main([*small, "--cores", "1", "--against", "torch", "--out", str(tmp_path)]) == 0
    rows = [line.split(" | ")[0] for line in capsys.readouterr().out.splitlines()[4:]]
    assert rows == ["| here, 1 core", "| DataLoader, 1 core, 0 workers", "| DataLoader, 1 core, 1 workers"]
    assert benchmark.main([*small, "--cores", "999"]) == 2
    assert "--cores 999: this machine lets a program have" in capsys.readouterr().err


@pytest.mark.slow
def test_second_starts_compile_nothing(tmp_path, capsys):
    small = ["compile", "--model", "Nano_6", "--batch-size", "2", "--rounds", "1", "--train"]
    assert benchmark.main([*small, "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "| here, second start |" in printed
    assert "import jax and flax.nnx:" in printed


def test_ratios_are_taken_within_a_round():
    seconds = {"a": np.array([1.0, 2.0, 4.0]), "b": np.array([2.0, 2.0, 12.0])}
    table = ratio_table(Timed({"a": 9.0, "b": 8.0}, seconds), "a", images=4)
    head = "| program | median s | images/s | times a | least | greatest | first call s |"
    assert table.splitlines()[0] == head
    assert table.splitlines()[-1] == "| b | 2.0000 | 2.00 | 2.00 | 1.00 | 3.00 | 8.00 |"


def test_programs_take_turns_and_first_answers_are_checked():
    calls, seen = [], {}
    programs = {name: lambda name=name: calls.append(name) or name.upper() for name in "ab"}
    timed = alternating(programs, 3, seen.update)
    assert "".join(calls) == "ab" + "ab" + "ba" + "ab"
    assert seen == {"a": "A", "b": "B"}
    assert [len(values) for values in timed.seconds.values()] == [3, 3]


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
