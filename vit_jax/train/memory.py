"""The device memory that a compiled step needs, and the memory that the device has."""

from pathlib import Path
from typing import Any, NamedTuple

import jax

from vit_jax.errors import InputError


class MemoryUse(NamedTuple):
    """Bytes on one device. state: the arguments of a step (parameters, optimizer, batch); work: temporary buffers."""

    state: int
    work: int

    @property
    def total(self) -> int:
        """Bytes of both."""
        return self.state + self.work


def memory_use(compiled: Any) -> MemoryUse:
    """Return what a compiled program needs by its compiler's plan."""
    plan = compiled.memory_analysis()
    new = max(0, plan.output_size_in_bytes - plan.alias_size_in_bytes)
    return MemoryUse(plan.argument_size_in_bytes, plan.temp_size_in_bytes + new)


def available_bytes() -> int | None:
    """Return the bytes that one device may use, or None if unknown. The devices of a CPU share its memory."""
    device = jax.local_devices()[0]
    stats = device.memory_stats()
    if stats and "bytes_limit" in stats:
        return int(stats["bytes_limit"])
    meminfo = Path("/proc/meminfo")
    if device.platform != "cpu" or not meminfo.is_file():
        return None
    lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
    own = int(Path("/proc/self/statm").read_text().split()[1]) * 4096  # resident memory of this process
    free = int(lines["MemAvailable"].split()[0]) * 1024 + own
    return free // jax.local_device_count()


def format_memory(need: MemoryUse, available: int | None) -> str:
    """Return a line for the user."""
    of = "" if available is None else f" of {available / 1e9:,.1f} GB"
    return (
        f"memory: a step needs about {need.total / 1e9:,.2f} GB{of} per device "
        f"({need.state / 1e9:,.2f} for state and batch, {need.work / 1e9:,.2f} for temporary buffers)"
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that memory ran out."""
    text = str(error)
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in text or "Out of memory" in text


def out_of_memory_error(batch_size: int) -> InputError:
    """Return an error for the user that names what saves memory."""
    return InputError(
        f"out of memory with batches of {batch_size}: give --accumulate 2 (the same steps in less memory), "
        "--remat full, a smaller --batch-size or --image-size, or on several devices --fsdp"
    )
