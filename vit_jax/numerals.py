"""Numbers that users write in flags, environment variables and files: ASCII digits, as everyone reads them.

Python's int() and float() also take digits of other scripts, underscores, spaces, "nan" and "inf"; str.isdigit() takes
superscripts, which int() refuses.
"""

import math
import re

INTEGER = re.compile(r"[+-]?[0-9]{1,18}")  # fits 64 bits
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def parse_int(text: str) -> int | None:
    """Return the whole number that a text is, None if it is none."""
    return int(text) if INTEGER.fullmatch(text) else None


def parse_float(text: str) -> float | None:
    """Return the finite number that a text is, such as 1, -0.5, .5 or 1e-3; None if it is none."""
    value = float(text) if NUMBER.fullmatch(text) else math.inf
    return value if math.isfinite(value) else None
