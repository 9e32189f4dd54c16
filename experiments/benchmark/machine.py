"""Describe the machine and the versions of a measurement."""

import os
import platform
from pathlib import Path

import jax

VECTOR_EXTENSIONS = ("amx_tile", "avx512f", "avx2")  # widest first


def describe_machine(*, with_torch: bool = False) -> dict[str, str]:
    """Return the device with its cores, the versions of Python and jax, and torch's version and threads if asked."""
    import flax
    import jaxlib

    device = jax.devices()[0]
    name = processor_name() if device.platform == "cpu" else device.device_kind
    versions = f"jax {jax.__version__}, jaxlib {jaxlib.__version__}, flax {flax.__version__}"
    description = {
        "device": f"{name}, {os.cpu_count()} cores, {platform.machine()}",
        "versions": f"Python {platform.python_version()}, {versions}",
    }
    if with_torch:
        import torch

        description["torch"] = f"torch {torch.__version__}, {torch.get_num_threads()} threads"
    return description


def processor_name() -> str:
    """Return the processor's name and its widest vector extension, which the speed of products depends on."""
    cpuinfo = Path("/proc/cpuinfo")
    fields: dict[str, str] = {}
    for line in cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []:
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    flags = fields.get("flags", "").split()
    widest = [f"({extension})" for extension in VECTOR_EXTENSIONS if extension in flags][:1]
    return " ".join([fields.get("model name") or platform.processor() or "CPU", *widest])
