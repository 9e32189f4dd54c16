"""What the programs set: an error that tensorstore prints long after the failure is kept quiet, no other."""

import os
import subprocess
import sys

import pytest

CODE = """
from experiments.common import runtime
runtime.configure()
class Late:
    def __del__(self):
        try:
            raise {cause}
        except BaseException as error:
            raise RuntimeError({text!r}) from error
Late()
"""


@pytest.mark.parametrize(
    ("text", "cause", "quiet"),
    [
        ("Event loop is closed", "ValueError", True),
        ("a read given up", "GeneratorExit", True),
        ("something else", "ValueError", False),
    ],
)
def test_only_what_orbax_left_behind_is_kept_quiet(text, cause, quiet):
    code = CODE.format(text=text, cause=cause)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stderr == "") == quiet


@pytest.mark.slow
def test_a_second_start_finds_what_the_first_compiled(tmp_path):
    """In a folder of the processor's own below the cache; nowhere without it, and where jax was told another place."""
    small = ["--model", "Pico_8", "--batch-size", "512", "--epochs", "1"]

    def started(name, *more, **environment):
        command = [sys.executable, "-m", "experiments.finetune", *small, "--out", str(tmp_path / name), *more]
        inherited = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
        changed = {"VIT_JAX_CACHE": str(tmp_path / "cache"), "JAX_ENABLE_COMPILATION_CACHE": "true"}
        subprocess.run(command, check=True, env=inherited | changed | environment, capture_output=True)

    started("none", "--no-compile-cache")
    assert not (tmp_path / "cache").exists()
    started("told", JAX_COMPILATION_CACHE_DIR=str(tmp_path / "told-cache"))
    assert not (tmp_path / "cache").exists()
    started("first")
    steps = list((tmp_path / "cache" / "compiled").glob("*/jit_train_step-*-cache"))
    assert len(steps) == 1
    before = steps[0].stat().st_mtime_ns
    started("second")
    assert [p.stat().st_mtime_ns for p in (tmp_path / "cache" / "compiled").glob("*/jit_train_step-*-cache")] == [
        before
    ]
    ours, theirs = ((tmp_path / name / "best" / "model.safetensors").read_bytes() for name in ("none", "second"))
    assert ours == theirs
