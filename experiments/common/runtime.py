"""What every program sets before it computes; a library must not, so this is called by main()."""

import hashlib
import logging
import platform
import sys
from pathlib import Path
from typing import Any

import jax

from vit_jax import _xla
from vit_jax.download import cache_folder

LEAST_SECONDS = 0.0  # what compiles faster is not kept: a start has some thirty small programs, 0.3 s together


def configure(*, compile_cache: bool = True) -> None:
    """Set XLA's flags, where the user set none (only before jax computes for the first time), and quiet asyncio.

    compile_cache: whether compiled programs are kept for the next start.

    asyncio and absl log the failed writes of orbax's threads beside the error that is told, and
    tensorstore prints that it can no longer tell the loop of a transfer that ended after the first one had failed.
    """
    sys.unraisablehook = _print_unless_left_behind
    for name in ("asyncio", "absl"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    _xla.disable_ynn_fusion()
    _xla.keep_freed_memory()
    if compile_cache:
        _keep_compiled()


def _keep_compiled() -> None:
    """Programs once compiled are kept on disk, where the user has not told jax where to (or not to)."""
    if jax.config.jax_compilation_cache_dir is None:  # type: ignore[attr-defined]
        jax.config.update("jax_compilation_cache_dir", str(Path(cache_folder()) / "compiled" / _machine()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", LEAST_SECONDS)


def _machine() -> str:
    """What sets apart processors that can't run each other's programs: a home may be shared by several."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
    return hashlib.sha256(f"{platform.machine()} {flags}".encode()).hexdigest()[:12]


def _print_unless_left_behind(unraisable: Any) -> None:
    error = unraisable.exc_value
    closed = isinstance(error, RuntimeError) and str(error) == "Event loop is closed"
    abandoned = isinstance(getattr(error, "__cause__", None), GeneratorExit)  # orbax's coroutine, never resumed
    if not (closed or abandoned):
        sys.__unraisablehook__(unraisable)
