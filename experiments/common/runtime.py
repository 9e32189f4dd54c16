"""What every program sets before it computes; a library must not, so this is called by main()."""

import ctypes
import hashlib
import logging
import os
import platform
import sys
from pathlib import Path
from typing import Any

import jaxlib

# jaxlib 0.10.2 fuses CPU reductions in a way that is slower here and wrong for some shapes (jax issues 39103, 39257).
# The empty value turns that off. Other versions may not know the flag, and an unknown one ends the process.
NO_YNN_FUSION = "--xla_cpu_experimental_ynn_fusion_type="
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8  # of glibc's malloc.h
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
    if jaxlib.__version__ == "0.10.2":
        os.environ.setdefault("XLA_FLAGS", NO_YNN_FUSION)
    _keep_memory()
    if compile_cache:
        _keep_compiled()


def _keep_memory() -> None:
    """What a step worked in stays with the process for the next one, where glibc has the memory.

    Otherwise the system takes gigabytes back after every step on a CPU and clears them anew, page by page. One arena,
    since others than the first can't keep what is larger than 64 MB.
    """
    libc = ctypes.CDLL(None) if os.name == "posix" else None
    if hasattr(libc, "gnu_get_libc_version"):
        for setting, value in ((M_ARENA_MAX, 1), (M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, -1)):
            libc.mallopt(setting, value)  # type: ignore[union-attr]  # it has one


def _keep_compiled() -> None:
    """Programs once compiled are kept on disk, where the user has not told jax where to (or not to)."""
    import jax

    from vit_jax.download import cache_folder

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
