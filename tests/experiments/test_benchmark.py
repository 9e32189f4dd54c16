"""The benchmarks as commands, on the smallest models: tables, files, equal captions, and what they refuse."""

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
from experiments.benchmark import loading, peer_programs
from experiments.benchmark import vit as benchmark_vit
from experiments.benchmark.flops import count_flops
from experiments.benchmark.process_memory import peak_bytes
from experiments.benchmark.programs import build_ours
from experiments.benchmark.results import format_ratios
from experiments.benchmark.timing import Timings, time_alternately
from experiments.benchmark.worker import Worker
from experiments.benchmark.workload import DINOV3, Workload, create_model
from vit_jax import CONFIGS as VIT_CONFIGS
from vit_jax import InputError

SMALL = ["caption", "--model", "mini", "--rounds", "2", "--batch", "2"]


@pytest.mark.slow
def test_captions_are_compared_with_the_original(tmp_path, capsys):
    """Both write the same captions of the requested length, even where the model would end them earlier."""
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


@pytest.mark.slow
def test_different_captions_are_an_error():
    model = benchmark_caption.create_endless_model(CONFIGS["mini"])
    images = np.random.default_rng(0).uniform(-1, 1, (1, 64, 80, 3)).astype(np.float32)
    peer = benchmark_caption.build_peer(model, images)
    ours = np.asarray(benchmark_caption.write_captions(model, images, 6))[0]
    np.testing.assert_array_equal(peer(6), ours)
    assert (ours[1:] != benchmark_caption.END).all()
    benchmark_caption.check_tokens(model, images, peer, 6)
    other = benchmark_caption.build_peer(model, images)
    with pytest.raises(InputError, match="captions differ from token 2 on"):
        benchmark_caption.check_tokens(model, images, lambda length: other(length) + np.arange(length) // 2, 6)


@pytest.mark.slow
@pytest.mark.parametrize("train", [False, True])
def test_a_vit_is_compared_with_the_originals(train, tmp_path, capsys):
    """Each runs in its own process; all give the same logits or losses. The fraction of the matrix rate is printed."""
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


def make_workload(train: bool, **changes) -> Workload:
    config = replace(VIT_CONFIGS["Nano_6"], **changes)
    return Workload(config, 4, train, False, "float32")


@pytest.mark.slow
def test_the_timed_steps_train_alike():
    workload = make_workload(True, num_classes=4)
    model = create_model(workload.config)
    names = peer_programs.peer_names(workload.config, ("torch",), with_compiled=False)
    peers = [peer_programs.build_peer(workload, name, model) for name in names]
    ours = build_ours(workload, model)
    sums = np.diff([0.0, *(float(ours()) for _ in range(4))]) / 4
    for peer in peers:
        np.testing.assert_allclose(sums, [peer() for _ in range(4)], rtol=2e-3)
    assert sums[-1] < sums[0]


@pytest.mark.parametrize("activation", ["gelu", "swiglu"])
def test_a_dinov3_is_compared_with_hugging_faces(activation):
    """Of a DINOv3's shape, made small, on pictures that are not square."""
    for package in ("torch", "transformers", "pytorch_pretrained_vit"):
        pytest.importorskip(package)
    shape = DINOV3["dinov3_vits16"]
    sizes = dict(image_size=(32, 48), width=48, depth=2, num_heads=3, mlp_dim=64, activation=activation)
    workload = Workload(replace(shape, **sizes), 2, False, False, "float32")
    [name] = peer_programs.peer_names(workload.config, ("torch",), with_compiled=True)
    assert name == peer_programs.HUGGING_FACE
    model = create_model(workload.config)
    outputs = {"here": build_ours(workload, model)(), name: peer_programs.build_peer(workload, name, model)()}
    assert outputs[name].shape == (2, 48)
    benchmark_vit.check_outputs(workload, outputs)


def test_a_model_without_classes_does_not_train(capsys):
    assert benchmark.main(["vit", "--model", "dinov3_vits16", "--train"]) == 2
    assert "has no classes to train on; leave out --train" in capsys.readouterr().err
    assert benchmark.main(["vit", "--model", "dinov3_vits14"]) == 2
    assert "did you mean dinov3_vits16" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name", [peer_programs.OPENVINO, pytest.param(peer_programs.ONNX_RUNTIME, marks=pytest.mark.slow)]
)
def test_engines_for_deployment_give_our_logits(name):
    pytest.importorskip("torch")  # both read its ONNX file
    workload = make_workload(False)
    model = create_model(workload.config)
    ours, theirs = np.asarray(build_ours(workload, model)()), peer_programs.build_peer(workload, name, model)()
    assert np.abs(ours - theirs).max() < 1e-5 * np.abs(ours).max()  # sums in another order; measured 6.6e-7, OpenVINO


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--against", "openvino", "--train"], "openvino: it does not train"),
        (["--against", "onnxruntime", "--train"], "onnxruntime: it does not train"),
        (["--against", "onnxruntime", "--dtype", "bfloat16"], "it has no bfloat16 on this processor"),
        (["--against", "onnxruntime", "--model", "dinov3_vits16"], "it runs pytorch_pretrained_vit's models"),
        (["--against", "openvino", "--model", "dinov3_vits16"], "it runs pytorch_pretrained_vit's models"),
    ],
)
def test_what_peers_do_not_run_is_one_line(flags, message, capsys):
    assert benchmark.main(["vit", "--model", "Nano_6", *flags]) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert message in line


def test_an_unknown_peer_is_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        benchmark.main(["vit", "--against", "torch,tensorflow"])
    assert "'tensorflow' is not one of torch, openvino, onnxruntime" in capsys.readouterr().err


def test_different_logits_are_an_error():
    name = peer_programs.ORIGINAL
    with pytest.raises(InputError, match=f"{name} gives other logits than ours, by"):
        benchmark_vit.check_outputs(
            make_workload(False), {"here": np.array([[1.0, 2.0]]), name: np.array([[1.0, 3.0]])}
        )
    with pytest.raises(InputError, match="another loss than ours"):
        benchmark_vit.check_outputs(make_workload(True), {"here": np.array(8.0), name: 8.0})


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"pooling": "gap"}])
def test_operations_are_counted_as_the_compiler_counts_them(changes):
    """Only the products: the compiler's count, which includes everything else, is a little higher."""
    workload = Workload(replace(VIT_CONFIGS["Ti_16"], **changes), 1, False, False, "float32")
    model = create_model(workload.config)
    analysis = jax.jit(lambda m, x: m(x)).lower(model, jnp.asarray(workload.images())).compile().cost_analysis()
    assert 0.9 * analysis["flops"] < count_flops(workload) < analysis["flops"]


@pytest.mark.slow
def test_memory(tmp_path, capsys):
    small = ["memory", "--model", "Nano_6", "--batch-size", "2", "--rounds", "1", "--against", "torch", "--train"]
    assert benchmark.main([*small, "--no-torch-compile", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out == (tmp_path / "benchmark_memory.md").read_text()
    peaks = json.loads((tmp_path / "benchmark_memory.json").read_text())["bytes"]
    assert list(peaks) == ["here", "pytorch_pretrained_vit", "Hugging Face, SDPA"]
    assert all(4 * 4 * 200_000 < later <= 2e9 for [[_, later]] in peaks.values())  # weights, gradient and two moments


def build_allocation(size: int):
    return lambda: (np.ones(size, np.uint8).sum(), peak_bytes())[1]


@pytest.mark.slow
def test_the_peak_memory_of_a_process_is_measured():
    with Worker(build_allocation, 1000) as small, Worker(build_allocation, 300_000_000) as large:
        assert 280e6 < large() - small() < 320e6


def fail():
    raise ValueError("of no use")


def test_a_failing_worker_reports_its_error():
    with pytest.raises(InputError, match="a measuring process failed: ValueError: of no use"):
        Worker(fail)


@pytest.mark.slow
def test_scale(tmp_path, capsys):
    small = ["scale", "--model", "Nano_6", "--rounds", "1", "--image-sizes", "24", "48", "--batch-sizes", "1", "2"]
    assert benchmark.main([*small, "--depths", "1", "2", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out == (tmp_path / "benchmark_scale.md").read_text()
    counted = json.loads((tmp_path / "benchmark_scale.json").read_text())["flops"]
    assert counted["batch 2"] == 2 * counted["batch 1"]
    assert Image.open(tmp_path / "benchmark_scale.png").width > 500


@pytest.mark.slow
def test_loading_is_compared_with_a_dataloader(tmp_path, capsys):
    """Both give the same pixels, on one core and on all."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    loading.generate_images(folder, 5)
    small = ["input", "--data", str(folder), "--image-size", "32", "--batch-size", "2", "--rounds", "1"]
    assert benchmark.main([*small, "--cores", "1", "--against", "torch", "--out", str(tmp_path)]) == 0
    rows = [line.split(" | ")[0] for line in capsys.readouterr().out.splitlines()[4:]]
    assert rows == ["| here, 1 core", "| DataLoader, 1 core, 0 workers", "| DataLoader, 1 core, 1 workers"]
    assert benchmark.main([*small, "--cores", "999"]) == 2
    assert "--cores 999: this machine lets a program have" in capsys.readouterr().err


@pytest.mark.slow
def test_a_second_start_is_measured_too(tmp_path, capsys):
    small = ["compile", "--model", "Nano_6", "--batch-size", "2", "--rounds", "1", "--train"]
    assert benchmark.main([*small, "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "| here, second start |" in printed
    assert "import jax and flax.nnx:" in printed


def test_ratios_are_computed_within_a_round():
    seconds = {"a": np.array([1.0, 2.0, 4.0]), "b": np.array([2.0, 2.0, 12.0])}
    table = format_ratios(Timings({"a": 9.0, "b": 8.0}, seconds), "a", images=4)
    head = "| program | median s | images/s | times a | min | max | first call s |"
    assert table.splitlines()[0] == head
    assert table.splitlines()[-1] == "| b | 2.0000 | 2.00 | 2.00 | 1.00 | 3.00 | 8.00 |"


def test_programs_alternate_and_first_outputs_are_checked():
    calls, seen = [], {}
    programs = {name: lambda name=name: calls.append(name) or name.upper() for name in "ab"}
    timings = time_alternately(programs, 3, seen.update)
    assert "".join(calls) == "ab" + "ab" + "ba" + "ab"
    assert seen == {"a": "A", "b": "B"}
    assert [len(values) for values in timings.seconds.values()] == [3, 3]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "required: what"),
        (["explain", "--model", "B_17"], "unknown model 'B_17'"),
        (["explain", "--lengths", "4"], "unknown flag --lengths"),
        (["caption", "--model", "vit_b16"], "no captioner 'vit_b16' to measure: one of catr, scenes, mini"),
        ([*SMALL, "--lengths", "1"], "--lengths 1: between 2 and the model's 128 positions"),
        ([*SMALL, "--against", "jax"], "'jax' is not one of"),
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
