"""The flag --dtype of programs that run a model, and a warning where bfloat16 costs time."""

import argparse
import sys
from typing import Any

import jax
import jaxlib

from vit_jax.precision import DTYPES, cast
from vit_jax.processor import multiplies_bfloat16, processor_features

FIRST_FAST_JAXLIB = (0, 12)  # 0.10.2 multiplies bfloat16 on CPUs at a third of the rate, and slower than float32


def add_dtype_flag(parser: argparse.ArgumentParser) -> None:
    """Add --dtype."""
    parser.add_argument("--dtype", choices=tuple(DTYPES), default="float32", help="to compute in (default: float32)")


def cast_model(model: Any, dtype: str) -> Any:
    """Return the model with parameters of a type of DTYPES, in which it then computes. Warn if that is slow here."""
    warn_if_slow(dtype)
    return cast(model, dtype)


def warn_if_slow(dtype: str) -> None:
    """Print a line on stderr if a type is slower than float32 on this machine."""
    has_products = multiplies_bfloat16() or not processor_features()  # unknown: on systems without /proc/cpuinfo
    reason = slowness(dtype, jax.default_backend(), jaxlib.__version__, has_products=has_products)
    if reason:
        print(f"--dtype {dtype} is slower than float32 here: {reason}", file=sys.stderr)


def slowness(dtype: str, backend: str, jaxlib_version: str, *, has_products: bool) -> str:
    """Return why a type is slower than float32; "" if it is not known to be."""
    if dtype == "float32" or backend != "cpu":
        return ""
    if not has_products:
        return "the processor does not multiply bfloat16 (no AVX512-BF16 and no AMX)"
    major, minor = map(int, jaxlib_version.split(".")[:2])
    if (major, minor) < FIRST_FAST_JAXLIB:
        return f"jaxlib {jaxlib_version} is slow in it on CPUs; use Python 3.12 or later and a newer jaxlib"
    return ""
