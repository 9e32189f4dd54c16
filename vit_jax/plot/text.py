"""Text of figures."""

import re

from vit_jax.files import printable_name
from vit_jax.plot.files import FONT

NO_BREAK = "\u00a0"  # a space at which no line ends


def wrap_title(text: str, inches: float, *, font: int = FONT) -> str:
    """Break a title into lines that fit a width, at spaces and after underscores, but not before a number.

    font: size in points.
    """
    letters = max(6, int(inches / (0.0085 * font)))
    lines = []
    for part in printable_name(text).split("\n"):
        line = ""
        part = re.sub(r"(?<=\w) (?=[<>=]? ?\d)|(?<=[<>=]) (?=\d)|(?<=\d) (?=%)", NO_BREAK, part)
        for word in re.findall(rf"[^\S{NO_BREAK}]+|(?:[^\s_]|{NO_BREAK}){{1,{letters - 1}}}_*|_+", part):
            if line and len(line) + len(word.rstrip()) > letters:
                lines.append(line.rstrip())
                line = ""
            line += word if line else word.lstrip()
        lines.append(line.rstrip())
    return "\n".join(lines).replace(NO_BREAK, " ")
