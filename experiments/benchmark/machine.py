"""Describe the machine and the versions of a measurement."""

import os
import platform
from collections.abc import Sequence

import jax

from experiments.benchmark.peer_programs import import_family
from vit_jax.processor import processor_features, processor_name

VECTOR_EXTENSIONS = ("amx_tile", "avx512_bf16", "avx512f", "avx2")  # widest first


def describe_machine(against: Sequence[str] = ()) -> dict[str, str]:
    """Return the device with its cores, the versions of Python and jax, and what each family of peers says of itself.

    against: names of peer_programs.FAMILIES.
    """
    import flax
    import jaxlib

    device = jax.devices()[0]
    name = describe_processor() if device.platform == "cpu" else device.device_kind
    versions = f"jax {jax.__version__}, jaxlib {jaxlib.__version__}, flax {flax.__version__}"
    description = {
        "device": f"{name}, {os.cpu_count()} cores, {platform.machine()}",
        "versions": f"Python {platform.python_version()}, {versions}",
    }
    return description | {family: import_family(family).describe() for family in against}


def describe_processor() -> str:
    """Return the processor's name and its widest vector extension, which the speed of products depends on."""
    features = processor_features()
    widest = [f"({extension})" for extension in VECTOR_EXTENSIONS if extension in features][:1]
    return " ".join([processor_name(), *widest])
