"""Strictness for every test: types and shapes checked at run time, no silent rank promotion, warnings are errors."""

import os
from importlib.metadata import version

if version("jaxlib") == "0.10.2":  # see vit_jax/_xla.py, which must not be imported before the hook below
    # Level 0, since the tests compile far more than they compute. VIT_JAX_TEST_XLA_DEFAULT=1 compiles as users do.
    level = "" if os.environ.get("VIT_JAX_TEST_XLA_DEFAULT") == "1" else " --xla_backend_optimization_level=0"
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_experimental_ynn_fusion_type=" + level)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_ENABLE_COMPILATION_CACHE", "false")  # nothing outside the tests' own folders

import jax
import pytest
from jaxtyping import install_import_hook

install_import_hook(["vit_jax", "caption", "weights_convert", "experiments"], "beartype.beartype")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def x64():
    """Float64 arithmetic while the test runs."""
    with jax.enable_x64(True):
        yield
