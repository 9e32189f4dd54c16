"""Process-wide settings of the programs: XLA flags, the compilation cache and logging. Libraries must not set them."""

import hashlib
import logging
import platform
import sys
from pathlib import Path
from typing import Any

import jax

from vit_jax import _xla
from vit_jax.download import cache_folder
from vit_jax.interruption import print_unraisable
from vit_jax.processor import processor_features

MIN_COMPILE_SECONDS = 0.0  # cache every program: a start compiles some thirty small ones, 0.3 s in total


def configure(*, compile_cache: bool = True) -> None:
    """Set XLA flags unless the user set some, and silence duplicate reports of failed writes.

    Call it before jax computes for the first time. compile_cache: cache compiled programs on disk.

    When a write of orbax fails, asyncio, absl and tensorstore log from their own threads too; the program reports the
    error once.
    """
    sys.unraisablehook = _print_unless_abandoned
    for name in ("asyncio", "absl"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    _xla.disable_ynn_fusion()
    _xla.keep_freed_memory()
    if compile_cache:
        _enable_compilation_cache()


def _enable_compilation_cache() -> None:
    """Cache compiled programs on disk, unless the user configured jax's cache."""
    if jax.config.jax_compilation_cache_dir is None:  # type: ignore[attr-defined]
        jax.config.update("jax_compilation_cache_dir", str(Path(cache_folder()) / "compiled" / _machine_hash()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", MIN_COMPILE_SECONDS)


def _machine_hash() -> str:
    """Return a hash of the processor's features: a home folder may be shared by machines of different kinds."""
    features = " ".join(processor_features()) or platform.processor()
    return hashlib.sha256(f"{platform.machine()} {features}".encode()).hexdigest()[:12]


def _print_unless_abandoned(unraisable: Any) -> None:
    error = unraisable.exc_value
    closed = isinstance(error, RuntimeError) and str(error) == "Event loop is closed"
    abandoned = isinstance(getattr(error, "__cause__", None), GeneratorExit)  # a coroutine of orbax, never resumed
    if not (closed or abandoned):
        print_unraisable(unraisable)
