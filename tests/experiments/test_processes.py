"""experiments.finetune and train_caption as two processes on one machine."""

import os
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest

from experiments import finetune
from vit_jax import load
from vit_jax.checkpoint import to_arrays
from vit_jax.train.logging import read_metrics

SMALL = [
    "--data",
    "digits",
    "--model",
    "Pico_8",
    "--batch-size",
    "256",
    "--epochs",
    "3",
    "--warmup-epochs",
    "0",
    "--fsdp",
]


def start_pair(program, *arguments):
    """Start two processes of one run."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes = []
    for index in range(2):
        flags = ["--coordinator", f"127.0.0.1:{port}", "--processes", "2", "--process", str(index)]
        command = [sys.executable, "-m", f"experiments.{program}", *map(str, arguments), *flags]
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    return processes


def drop_gloo_lines(text):
    """Return the lines that are not of Gloo, the library that connects processes."""
    return [line for line in text.splitlines() if not line.startswith("[Gloo]")]


def wait_for_exit(children):
    return [(child.communicate(timeout=240), child.returncode) for child in children]


@pytest.mark.slow
def test_fine_tuning(tmp_path):
    """The epochs equal those of one process up to float32 rounding; only the first process prints and writes."""
    one, two = tmp_path / "alone", tmp_path / "two"
    assert finetune.main([*SMALL, "--out", str(one)]) == 0
    (first, second), codes = zip(*wait_for_exit(start_pair("finetune", *SMALL, "--out", two)), strict=True)
    assert codes == (0, 0), (first, second)
    assert "best validation accuracy" in first[0]
    assert drop_gloo_lines(second[0]) == []
    losses = [[r["val_loss"] for r in read_metrics(f / "metrics.jsonl") if "val_loss" in r] for f in (one, two)]
    assert len(losses[1]) == 3
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)
    ours, theirs = (to_arrays(load(folder / "best")) for folder in (one, two))
    assert max(np.abs(ours[name] - theirs[name]).max() for name in ours) < 1e-2


@pytest.mark.slow
def test_a_signal_to_either_stops_both_and_one_process_resumes_the_run(tmp_path):
    out = tmp_path / "run"
    children = start_pair("finetune", *SMALL[:-4], "500", *SMALL[-3:], "--out", out)
    for line in children[0].stdout:
        if line.startswith("epoch 2/"):
            break
    children[1].send_signal(signal.SIGTERM)
    results = wait_for_exit(children)
    assert [code for _, code in results] == [128 + signal.SIGTERM] * 2
    assert "saved at step" in results[0][0][0]
    step = int(results[0][0][0].split("saved at step ")[1].split(";")[0])
    resumed = subprocess.Popen(
        [sys.executable, "-m", "experiments.finetune", "--resume", out], stdout=subprocess.PIPE, text=True
    )
    assert any(f"resuming at step {step} of" in line for line in resumed.stdout)


@pytest.mark.slow
def test_captions(tmp_path):
    out = tmp_path / "scenes"
    arguments = ["--epochs", "1", "--batch-size", "64", "--out", out]
    ((output, errors), code), ((second_output, _), second_code) = wait_for_exit(start_pair("train_caption", *arguments))
    assert (code, second_code) == (0, 0), errors
    assert "peaks inside its object" in output
    assert drop_gloo_lines(second_output) == []
    assert len([r for r in read_metrics(out / "metrics.jsonl") if "val_exact" in r]) == 1


@pytest.mark.slow
def test_captions_on_eight_devices(tmp_path):
    """Sharded parameters decode, are validated, saved and restored."""
    out = tmp_path / "scenes"
    command = [sys.executable, "-m", "experiments.train_caption", "--epochs", "1", "--fsdp", "--accumulate", "2"]
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=8"
    for more in (["--out", out], ["--resume", out]):
        done = subprocess.run([*command, *more], env=os.environ | {"XLA_FLAGS": flags}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert "resuming at step" in done.stdout
    assert len([r for r in read_metrics(out / "metrics.jsonl") if "val_exact" in r]) == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--processes", "2"], "--coordinator, --processes and --process go together"),
        (["--coordinator", "127.0.0.1:1", "--processes", "2", "--process", "2"], "--process 2: from 0 to 1"),
    ],
)
def test_wrong_flags_are_one_line(flags, message, tmp_path, capsys):
    assert finetune.main(["--out", str(tmp_path / "r"), *flags]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "r").exists()
