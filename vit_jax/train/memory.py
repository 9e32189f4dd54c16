"""The device memory that a compiled step needs, and the memory that the device has."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import jax

from vit_jax.errors import InputError

LARGE_WORK = 100_000_000  # bytes


class MemoryUse(NamedTuple):
    """Bytes on one device. state: the arguments of a step (parameters, optimizer, batch); work: temporary buffers."""

    state: int
    work: int

    @property
    def total(self) -> int:
        """Bytes of both."""
        return self.state + self.work


class HostUse(NamedTuple):
    """Bytes per device that training needs next to its steps where the device is the CPU, else 0.

    process: what the process has besides state and batch: Python, the program, the initial model, decoded images.
    copies:  of the state while it is written, ours and the writer's, or of the best model.
    overlap: whether steps follow while a checkpoint is written; else copies use what the temporary buffers have left.
    """

    process: int = 0
    copies: int = 0
    overlap: bool = False

    def total(self, need: MemoryUse) -> int:
        """Return the bytes of the peak."""
        both = need.work + self.copies if self.overlap else max(need.work, self.copies)
        return self.process + need.state + both


def host_use(need: MemoryUse, state: Any, *, is_saved: bool, epochs: int) -> HostUse:
    """Return what training needs besides a step. state: a TrainState; is_saved: whether checkpoints are written."""
    if jax.local_devices()[0].platform != "cpu":
        return HostUse()
    copied = jax.tree.leaves((state, state) if is_saved else state.eval_params)
    process = resident_bytes() // jax.local_device_count() - need.state
    return HostUse(max(0, process), sum(array.nbytes for array in copied), overlap=epochs > 1)


def resident_bytes() -> int:
    """Return the resident memory of this process, 0 where the system does not tell."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.is_file() else 0


def memory_use(compiled: Any) -> MemoryUse:
    """Return what a compiled program needs by its compiler's plan."""
    plan = compiled.memory_analysis()
    new = max(0, plan.output_size_in_bytes - plan.alias_size_in_bytes)
    return MemoryUse(plan.argument_size_in_bytes, plan.temp_size_in_bytes + new)


def allocates_at_dispatch(need: MemoryUse) -> bool:
    """Return whether every step in flight has large temporary buffers of its own, which the plan counts once.

    A CPU allocates them when the step is dispatched; other devices when it runs.
    """
    return jax.local_devices()[0].platform == "cpu" and need.work > LARGE_WORK


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
    free = int(lines["MemAvailable"].split()[0]) * 1024 + resident_bytes()
    return free // jax.local_device_count()


def format_memory(need: MemoryUse, host: HostUse, available: int | None) -> str:
    """Return a line for the user."""
    joint = "and" if host.overlap else "or"
    rest = f", {joint} {host.copies / 1e9:,.2f} for copies to save, {host.process / 1e9:,.2f} for the process"
    of = "" if available is None else f" of {available / 1e9:,.1f} GB"
    return (
        f"memory: training needs about {host.total(need) / 1e9:,.2f} GB{of} per device ("
        f"{need.state / 1e9:,.2f} for state and batch, {need.work / 1e9:,.2f} for temporary buffers"
        f"{rest if host.copies else ''})"
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
