"""The engine on many devices and processes: any split, accumulation, layers and remat give the same numbers."""

import os
import socket
import subprocess
import sys

import numpy as np
import pytest

import tests.reference as reference

ONE_DEVICE = "1,whole,1,0.1,plain,none"
NO_DROPOUT = "1,whole,1,0,plain,none"
LIKE_ONE_DEVICE = ["8>2,fsdp,1,0.1,plain,none"]
LIKE_ONE_DEVICE_SLOW = [
    "8,whole,1,0.1,plain,none",
    "8,fsdp,1,0.1,plain,none",
    "2,fsdp,1,0.1,plain,full",
    "4,fsdp,1,0.1,scan,dots",
    "2>1,whole,1,0.1,plain,none",
]
LIKE_NO_DROPOUT = ["8,fsdp,2,0,scan,full"]
LIKE_NO_DROPOUT_SLOW = ["1,whole,4,0,plain,none"]
PROCESSES = ["8,whole,1,0.1,plain,none", "8,fsdp,1,0.1,plain,none"]


def start(out, cases, *, devices, more=()):
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    command = [sys.executable, "-m", "tests.vit_jax.train.engine_run", str(out), *cases, *more]
    return subprocess.Popen(command, env=os.environ | {"XLA_FLAGS": flags}, stderr=subprocess.PIPE, text=True)


def wait_for(*children):
    for child in children:
        errors = child.communicate(timeout=300)[1]
        assert child.returncode == 0, errors


def run_in_one_process(folder, cases):
    wait_for(start(folder / "one.npz", cases, devices=8))
    return reference.load_arrays(folder / "one.npz")


@pytest.fixture(scope="module")
def one_process(tmp_path_factory):
    cases = [ONE_DEVICE, NO_DROPOUT, *LIKE_ONE_DEVICE, *LIKE_NO_DROPOUT]
    return run_in_one_process(tmp_path_factory.mktemp("engine"), cases)


def arrays(results, case):
    return [results[f"{case}/{i}"] for i in range(sum(name.startswith(f"{case}/") for name in results))]


def assert_close(ours, theirs):
    assert len(ours) == len(theirs) > 100
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("case", "like"), [(c, ONE_DEVICE) for c in LIKE_ONE_DEVICE] + [(c, NO_DROPOUT) for c in LIKE_NO_DROPOUT]
)
def test_devices_layers_and_accumulation_give_one_devices_numbers(case, like, one_process):
    assert_close(arrays(one_process, case), arrays(one_process, like))


@pytest.mark.slow
def test_any_devices_layers_and_accumulation_give_one_devices_numbers(one_process, tmp_path):
    results = run_in_one_process(tmp_path, LIKE_ONE_DEVICE_SLOW + LIKE_NO_DROPOUT_SLOW)
    for cases, like in ((LIKE_ONE_DEVICE_SLOW, ONE_DEVICE), (LIKE_NO_DROPOUT_SLOW, NO_DROPOUT)):
        for case in cases:
            assert_close(arrays(results, case), arrays(one_process, like))


def test_dropout_changes_the_result(one_process):
    difference = max(
        abs(a - b).max() for a, b in zip(arrays(one_process, ONE_DEVICE), arrays(one_process, NO_DROPOUT), strict=True)
    )
    assert difference > 1e-3


@pytest.mark.slow
def test_two_processes_read_each_image_once_and_give_one_devices_numbers(one_process, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    outs = [tmp_path / f"{i}.npz" for i in range(2)]
    wait_for(
        *(start(out, PROCESSES, devices=4, more=["--process", str(i), "--port", port]) for i, out in enumerate(outs))
    )
    both = [reference.load_arrays(out) for out in outs]
    for case in PROCESSES:
        for results in both:
            assert_close(arrays(results, case), arrays(one_process, ONE_DEVICE))
    read = np.concatenate([results["read"] for results in both])
    times = np.bincount(read, minlength=27)
    assert (times == 3 * len(PROCESSES)).all()  # every image once an epoch, in either process
    assert 0 not in [len(results["read"]) for results in both]
