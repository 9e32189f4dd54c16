"""The memory of this process, as Linux counts it."""

import ctypes
import gc
import os
from pathlib import Path


def resident_bytes() -> int:
    """Return the resident bytes of this process, after returning freed memory to the system."""
    gc.collect()
    libc = ctypes.CDLL(None) if os.name == "posix" else None
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)  # type: ignore[union-attr]
    return _read_status("VmRSS")


def peak_bytes() -> int:
    """Return the peak of the resident bytes since the start of this process, or since reset_peak()."""
    return _read_status("VmHWM")


def reset_peak() -> None:
    """Restart the count of peak_bytes()."""
    Path("/proc/self/clear_refs").write_text("5")


def _read_status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    line = next(line for line in lines if line.startswith(name + ":"))
    return int(line.split()[1]) * 1024  # it is in kB
