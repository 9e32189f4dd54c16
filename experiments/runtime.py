"""What every program sets before it computes; a library must not, so this is called by main()."""

import logging
import os

import jaxlib

from vit_jax import InputError

# jaxlib 0.10.2 fuses CPU reductions in a way that is slower here and wrong for some shapes (jax issues 39103, 39257).
# The empty value turns that off. Other versions may not know the flag, and an unknown one ends the process.
NO_YNN_FUSION = "--xla_cpu_experimental_ynn_fusion_type="


def configure() -> None:
    """Set XLA's flags, where the user set none (only before jax computes for the first time), and quiet asyncio.

    asyncio logs the failed writes of orbax's threads when they are collected, long after the error was told.
    """
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    if jaxlib.__version__ == "0.10.2":
        os.environ.setdefault("XLA_FLAGS", NO_YNN_FUSION)


def cache_folder() -> str:
    """Where downloads are kept: $VIT_JAX_CACHE, else ~/.cache/vit_jax."""
    folder = os.environ.get("VIT_JAX_CACHE") or os.path.join(os.path.expanduser("~"), ".cache", "vit_jax")
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise InputError(f"{folder}: not a folder; set VIT_JAX_CACHE to one")
    return folder
