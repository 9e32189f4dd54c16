"""Show the project's docstrings, which are plain text, as Markdown: an extension of griffe for the site.

Shapes such as [B, N] and signs such as * and < stay as they are written, and lines `name: meaning` become a list.
"""

import re
from typing import Any

import griffe

FIELD = re.compile(r"^(\w[\w, ]*?):\s+(?=\S)")


def to_markdown(text: str) -> str:
    """Return a docstring as Markdown. Indented formulas stay code blocks; code spans stay as they are."""
    blocks = re.split(r"\n\s*\n", text)
    return "\n\n".join(_convert_block(block) for block in blocks)


def _convert_block(block: str) -> str:
    lines = block.split("\n")
    if all(line.startswith("    ") for line in lines):
        return block
    result: list[str] = []
    is_list = False
    for line in lines:
        field = FIELD.match(line)
        if field:
            result += [] if is_list else [""]
            result.append(f"- **{_escape(field[1])}**: {_escape(line[field.end() :])}")
            is_list = True
        elif is_list and line.startswith(" "):
            result.append("    " + _escape(line.strip()))
        else:
            result += [""] if is_list else []
            result.append(_escape(line))
            is_list = False
    return "\n".join(result)


def _escape(text: str) -> str:
    """Escape what Markdown would read as markup, outside of code spans and of links."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else re.sub(r"([\[\]<*_])", r"\\\1", part) for part in parts)


class PlainDocstrings(griffe.Extension):
    """Convert every docstring before it is parsed."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Convert the docstring of a module, class, function or attribute."""
        if obj.docstring:
            obj.docstring.value = to_markdown(obj.docstring.value)
