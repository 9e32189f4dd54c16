"""How programs end: as real processes, with a reader that leaves, in a poor encoding, and by signals."""

import os
import signal
import subprocess
import sys
import time

import pytest

from vit_jax import InputError
from vit_jax.locks import lock_folder


def start(*arguments, **options):
    return subprocess.Popen([sys.executable, "-m", *arguments], stderr=subprocess.PIPE, text=True, **options)


def test_a_reader_that_leaves_early_ends_a_program_silently():
    reading, writing = os.pipe()
    os.close(reading)
    child = start("weights_convert", "list", stdout=writing, env=os.environ | {"PYTHONIOENCODING": "ascii"})
    os.close(writing)
    assert (child.communicate(timeout=100)[1], child.returncode) == ("", 141)


@pytest.mark.parametrize("platform", ["cuda", "nonsense"])
def test_devices_that_are_not_there_are_one_line(platform, tmp_path):
    environment = os.environ | {"JAX_PLATFORMS": platform, "CUDA_VISIBLE_DEVICES": ""}
    child = start("experiments.finetune", "--out", str(tmp_path / "run"), stdout=subprocess.PIPE, env=environment)
    out, error = child.communicate(timeout=100)
    assert (child.returncode, out) == (2, "")
    assert error.startswith(f"error: JAX_PLATFORMS={platform}: ")
    assert "unset JAX_PLATFORMS" in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("program", ["weights_convert", "experiments.finetune"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_during_the_imports_ends_a_program_silently(program, number, code):
    child = start(program, stdout=subprocess.PIPE)
    time.sleep(0.5)
    child.send_signal(number)
    begun = time.monotonic()
    assert (*child.communicate(timeout=100), child.returncode) == ("", "", code)
    assert time.monotonic() - begun < 5


@pytest.mark.slow
def test_a_second_process_of_one_run_is_refused_and_a_killed_one_frees_it(tmp_path):
    run = tmp_path / "run"
    flags = ["--model", "Pico_8", "--batch-size", "512", "--epochs", "5000", "--out", str(run)]
    first = start("experiments.finetune", *flags, stdout=subprocess.PIPE)
    try:
        assert any(line.startswith("epoch 1/") for line in first.stdout)
        second = start("experiments.finetune", "--resume", str(run), stdout=subprocess.PIPE)
        error = second.communicate(timeout=100)[1]
        assert second.returncode == 2
        assert error == f"error: {run}: another process trains this run; wait for it, or stop it first\n"
        assert first.poll() is None
        with pytest.raises(InputError, match="trains this run"), lock_folder(run, "trains this run"):
            pass
    finally:
        first.kill()
        first.communicate()
    with lock_folder(run, "trains this run"):  # free
        assert (run / "metrics.jsonl").stat().st_size > 0
