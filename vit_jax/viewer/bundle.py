"""One HTML file from the modules, the style and the markup in static/, and a page's data.

The modules are ES modules, which a browser does not load from a file on disk. They become one inline script: each after
those that it imports, without its import and export words. Names at the top of the modules are therefore unique, as the
browser itself checks: it refuses a script that declares a name twice.
"""

import json
import re
from collections.abc import Mapping
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

MARKUP, STYLE, MAIN = "page.html", "style.css", "main.js"
IMPORT = re.compile(r'^import \{[^}]*\} from "\./([\w.]+)";\n', re.MULTILINE)
EXPORT = re.compile(r"^export ", re.MULTILINE)
PLACE = re.compile(r"\{\{(\w+)\}\}")


def read_static(name: str) -> str:
    """Return a file of static/."""
    return (files("vit_jax.viewer") / "static" / name).read_text(encoding="utf-8")


@cache
def join_modules(main: str = MAIN) -> str:
    """Return the script of a module and of all that it imports, directly or not."""
    return "\n".join(_strip(read_static(name)) for name in _order_modules(main, ()))


def _order_modules(name: str, before: tuple[str, ...]) -> tuple[str, ...]:
    """Return the modules before, and then, in the order of their execution, those that `name` adds."""
    if name in before:
        return before
    for imported in IMPORT.findall(read_static(name)):
        before = _order_modules(imported, before)
    return (*before, name)


def _strip(module: str) -> str:
    return EXPORT.sub("", IMPORT.sub("", module))


def assemble(title: str, data: Mapping[str, Any]) -> str:
    """Return a page. data: becomes JSON; static/types.js describes it as PageInfo."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    parts = {
        "title": escape(title),
        "style": read_static(STYLE),
        "data": text.replace("<", "\\u003c"),  # so that no text in it ends the element
        "script": join_modules(),
    }
    return PLACE.sub(lambda match: parts[match.group(1)], read_static(MARKUP))
