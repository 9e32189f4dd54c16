"""What every program sets before it computes; a library must not, so this is called by main()."""

import logging
import os
import sys
from typing import Any

import jaxlib

# jaxlib 0.10.2 fuses CPU reductions in a way that is slower here and wrong for some shapes (jax issues 39103, 39257).
# The empty value turns that off. Other versions may not know the flag, and an unknown one ends the process.
NO_YNN_FUSION = "--xla_cpu_experimental_ynn_fusion_type="


def configure() -> None:
    """Set XLA's flags, where the user set none (only before jax computes for the first time), and quiet asyncio.

    asyncio and absl log the failed writes of orbax's threads beside the error that is told, and
    tensorstore prints that it can no longer tell the loop of a transfer that ended after the first one had failed.
    """
    sys.unraisablehook = _print_unless_left_behind
    for name in ("asyncio", "absl"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    if jaxlib.__version__ == "0.10.2":
        os.environ.setdefault("XLA_FLAGS", NO_YNN_FUSION)


def _print_unless_left_behind(unraisable: Any) -> None:
    error = unraisable.exc_value
    closed = isinstance(error, RuntimeError) and str(error) == "Event loop is closed"
    abandoned = isinstance(getattr(error, "__cause__", None), GeneratorExit)  # orbax's coroutine, never resumed
    if not (closed or abandoned):
        sys.__unraisablehook__(unraisable)
