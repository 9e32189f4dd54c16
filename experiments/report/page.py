"""The blocks of a report, and the report as one self-contained HTML page and as Markdown.

Each block type has a `kind`, by which the templates in templates/ choose its markup. Both templates escape every value.
"""

import base64
import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

HTML_TEMPLATE, MARKDOWN_TEMPLATE = "report.html.jinja", "report.md.jinja"


@dataclass(frozen=True)
class Heading:
    """The heading of a section."""

    kind: ClassVar[str] = "heading"
    text: str


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    kind: ClassVar[str] = "text"
    text: str


@dataclass(frozen=True)
class Table:
    """A header and rows of cells. numbers: indices of the numeric columns, which are right-aligned."""

    kind: ClassVar[str] = "table"
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: Sequence[int] = ()


@dataclass(frozen=True)
class Code:
    """Shell commands."""

    kind: ClassVar[str] = "code"
    text: str

    @property
    def fence(self) -> str:
        """A Markdown fence longer than every run of backticks in the text."""
        return "`" * max(3, 1 + max((len(run) for run in re.findall("`+", self.text)), default=0))


@dataclass(frozen=True)
class Figure:
    """A PNG image: its file name without suffix, its caption, its bytes, and its width in CSS pixels."""

    kind: ClassVar[str] = "figure"
    name: str
    caption: str
    png: bytes
    width: int = 700

    @property
    def data_uri(self) -> str:
        """The image as a data: URI."""
        return f"data:image/png;base64,{base64.b64encode(self.png).decode()}"


@dataclass(frozen=True)
class Viewer:
    """A page of vit_jax.viewer, in a frame of its own that cannot reach the report; in Markdown its caption alone."""

    kind: ClassVar[str] = "viewer"
    caption: str
    html: str


Block = Heading | Text | Table | Code | Figure | Viewer


def render_html(title: str, blocks: Sequence[Block]) -> str:
    """Return one page with its figures embedded; it fetches nothing, and only its viewers have scripts."""
    return _template(HTML_TEMPLATE).render(title=title, blocks=blocks)


def render_markdown(title: str, blocks: Sequence[Block], figures: str) -> str:
    """Return the same report as Markdown. figures: the folder, relative to it, that holds NAME.png."""
    return _template(MARKDOWN_TEMPLATE).render(title=title, blocks=blocks, figures=figures)


@functools.cache
def _template(name: str) -> Any:
    is_html = name == HTML_TEMPLATE
    environment = Environment(
        loader=PackageLoader("experiments.report"),
        autoescape=is_html,
        finalize=None if is_html else _finalize_markdown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(name)


def escape_markdown(text: str) -> str:
    """Escape what Markdown would interpret, and join lines."""
    return re.sub(r"([\\`*_{}\[\]<>|$#&~])", r"\\\1", text).replace("\n", " ")


def _finalize_markdown(value: Any) -> str:
    """Escape every value of the Markdown template, as autoescape does in HTML, except where it says `safe`."""
    return value if isinstance(value, Markup) else escape_markdown(str(value))
