"""What a compiled step needs of a device's memory, beside what the device has."""

from pathlib import Path
from typing import Any, NamedTuple

import jax

from vit_jax.errors import InputError


class MemoryUse(NamedTuple):
    """Bytes on one device. state: what a step is given (parameters, optimiser, batch); work: all else while it runs."""

    state: int
    work: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.state + self.work


def memory_use(compiled: Any) -> MemoryUse:
    """What a compiled program needs, as its compiler planned it."""
    found = compiled.memory_analysis()
    new = max(0, found.output_size_in_bytes - found.alias_size_in_bytes)
    return MemoryUse(found.argument_size_in_bytes, found.temp_size_in_bytes + new)


def available_bytes() -> int | None:
    """Bytes that one device may use, or None where that can't be told. A CPU's memory is shared by its devices."""
    device = jax.local_devices()[0]
    stats = device.memory_stats()
    if stats and "bytes_limit" in stats:
        return int(stats["bytes_limit"])
    meminfo = Path("/proc/meminfo")
    if device.platform != "cpu" or not meminfo.is_file():
        return None
    lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
    own = int(Path("/proc/self/statm").read_text().split()[1]) * 4096  # what this process holds already
    free = int(lines["MemAvailable"].split()[0]) * 1024 + own
    return free // jax.local_device_count()


def format_memory(need: MemoryUse, available: int | None) -> str:
    """One line for the user."""
    of = "" if available is None else f" of {available / 1e9:,.1f} GB"
    return (
        f"memory: a step needs about {need.total / 1e9:,.2f} GB{of} a device "
        f"({need.state / 1e9:,.2f} for state and batch, {need.work / 1e9:,.2f} to work in)"
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out."""
    text = str(error)
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in text or "Out of memory" in text


def out_of_memory_error(batch_size: int) -> InputError:
    """What to tell of memory that ran out."""
    return InputError(
        f"out of memory with batches of {batch_size}: give --accumulate 2 (the same steps in less memory), "
        "--remat full, a smaller --batch-size or --image-size, or on several devices --fsdp"
    )
