"""The machine: its devices, and what /proc/cpuinfo says of the processor (nothing on systems without it)."""

import functools
import os
import platform
from pathlib import Path

import jax

BFLOAT16_PRODUCTS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})  # x86, x86, ARM


@functools.cache
def read_cpuinfo() -> dict[str, str]:
    """Return the fields of the first core."""
    cpuinfo = Path("/proc/cpuinfo")
    fields: dict[str, str] = {}
    for line in cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []:
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    return fields


def processor_name() -> str:
    """Return the name of the processor."""
    return read_cpuinfo().get("model name") or platform.processor() or "CPU"


def processor_features() -> tuple[str, ...]:
    """Return the processor's features, as the kernel names them."""
    fields = read_cpuinfo()
    return tuple((fields.get("flags") or fields.get("Features") or "").split())


def multiplies_bfloat16() -> bool:
    """Whether the processor has products of bfloat16 matrices."""
    return bool(BFLOAT16_PRODUCTS & set(processor_features()))


def describe_hardware() -> str:
    """Return jax's devices and the cores of this machine, as "1 x NVIDIA H100, 16 cores"."""
    devices = jax.devices()
    kind = processor_name() if devices[0].platform == "cpu" else f"{len(devices)} x {devices[0].device_kind}"
    return f"{kind}, {os.cpu_count()} cores"
