"""Strictness for every test: types and shapes checked at run time, no silent rank promotion, warnings are errors."""

import gc
import os
import pkgutil
import signal
import tempfile
from importlib.metadata import version
from pathlib import Path

if "XLA_FLAGS" not in os.environ:
    is_affected = version("jaxlib") == "0.10.2"  # see vit_jax/_xla.py, which must not be imported before the hook below
    flags = ["--xla_cpu_experimental_ynn_fusion_type="] if is_affected else []
    if os.environ.get("VIT_JAX_TEST_XLA_DEFAULT") != "1":  # else compile as users do
        # The tests compile far more than they compute: these flags halve compile time.
        flags += ["--xla_backend_optimization_level=0", "--xla_cpu_parallel_codegen_split_count=1"]
        flags += ["--xla_cpu_use_fusion_emitters=false"] if is_affected else []  # newer versions have no such flag
    os.environ["XLA_FLAGS"] = " ".join(flags)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # the workers and the programs that tests start inherit it
    folder = tempfile.TemporaryDirectory(prefix="jax_cache_")  # the session's own: every program is compiled once
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    # jax writes an entry in place: who reads it half-written compiles the program itself.
    os.environ["PYTHONWARNINGS"] = "ignore:Error reading persistent compilation cache entry:UserWarning"

import jax
import pytest
from beartype.claw import beartype_package
from jaxtyping import install_import_hook

beartype_package("weights_convert.formats")  # types without shapes: its functions are called for every byte of a pickle
parts = pkgutil.iter_modules([str(Path(__file__).parents[1] / "weights_convert")])
others = [f"weights_convert.{part.name}" for part in parts if part.name != "formats"]
install_import_hook(["vit_jax", "caption", "experiments", *others], "beartype.beartype")
jax.config.update("jax_numpy_rank_promotion", "raise")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in a background job; the programs that tests start inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)
gc.set_threshold(200_000, 50, 100)  # tracing creates millions of objects, and little garbage: 0.84 of the time

from weights_convert.model_types import PUBLISHED_HEADS  # noqa: E402  after the hook


@pytest.fixture(autouse=True)
def signal_handlers():
    """Restore the handlers of signals. A test that leaves one fails, since a later test's signal would end the worker."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    after = {number: signal.signal(number, handler) for number, handler in before.items()}
    assert after == before, "the test leaves a signal handler"


@pytest.fixture
def x64():
    """Enable float64 arithmetic while the test runs."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def tiny_heads(monkeypatch):
    """Let a file of reference.tiny_torch(dim=64, num_heads=1) be one of a published shape, whose heads are known."""
    monkeypatch.setitem(PUBLISHED_HEADS, (64, 3), 1)
