"""Runtime settings of the programs: late errors of tensorstore are silenced, no others; the compilation cache."""

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
        pytest.param("a read given up", "GeneratorExit", True, marks=pytest.mark.slow),
        ("something else", "ValueError", False),
    ],
)
def test_only_late_errors_of_orbax_are_silenced(text, cause, quiet):
    code = CODE.format(text=text, cause=cause)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stderr == "") == quiet


@pytest.mark.slow
def test_a_second_run_reuses_what_the_first_compiled(tmp_path):
    """Compiled programs go to a folder per processor below the cache. The flag or jax's own variable turns it off."""
    small = ["--model", "Pico_8", "--batch-size", "512", "--epochs", "1"]

    def run(name, *more, **environment):
        command = [sys.executable, "-m", "experiments.finetune", *small, "--out", str(tmp_path / name), *more]
        inherited = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
        changed = {"VIT_JAX_CACHE": str(tmp_path / "cache"), "JAX_ENABLE_COMPILATION_CACHE": "true"}
        subprocess.run(command, check=True, env=inherited | changed | environment, capture_output=True)

    run("none", "--no-compile-cache")
    assert not (tmp_path / "cache").exists()
    run("configured", JAX_COMPILATION_CACHE_DIR=str(tmp_path / "configured-cache"))
    assert not (tmp_path / "cache").exists()
    run("first")
    steps = list((tmp_path / "cache" / "compiled").glob("*/jit_train_step-*-cache"))
    assert len(steps) == 1
    before = steps[0].stat().st_mtime_ns
    run("second")
    assert [p.stat().st_mtime_ns for p in (tmp_path / "cache" / "compiled").glob("*/jit_train_step-*-cache")] == [
        before
    ]
    ours, theirs = ((tmp_path / name / "best" / "model.safetensors").read_bytes() for name in ("none", "second"))
    assert ours == theirs
