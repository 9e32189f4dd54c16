"""A report's blocks as one HTML file with everything in it, and as Markdown with its figures beside it."""

import base64
import html
import re
from collections.abc import Sequence
from typing import NamedTuple


class Heading(NamedTuple):
    """The title of a part."""

    text: str


class Text(NamedTuple):
    """A paragraph."""

    text: str


class Table(NamedTuple):
    """Rows of cells below their header; columns of numbers, by their place, are set to the right."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: Sequence[int] = ()


class Code(NamedTuple):
    """Lines to type."""

    text: str


class Figure(NamedTuple):
    """A PNG: its file name without ending, what it shows, its bytes, and its width in CSS pixels."""

    name: str
    caption: str
    png: bytes
    width: int = 700


Block = Heading | Text | Table | Code | Figure

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; margin: 0 auto; padding: 1rem;
       max-width: 56rem; }
h1 { font-size: 1.7rem; line-height: 1.2; } h2 { font-size: 1.25rem; margin-top: 2.2rem; }
h1, h2, td, p, figcaption { overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 0.25rem 0.8rem 0.25rem 0; border-bottom: 1px solid #ddd; vertical-align: top;
         min-width: 3.5rem; }
td.n { white-space: nowrap; } .n { text-align: right; }
figure { margin: 1.2rem 0; } img { max-width: 100%; height: auto; }
figcaption { font-size: 0.85rem; color: #444; }
pre { background: #f4f4f4; padding: 0.7rem; overflow-x: auto; font-size: 0.85rem; }
@media print { body { max-width: none; } figure, tr { break-inside: avoid; } pre { white-space: pre-wrap; }
  .wide { overflow: visible; } }
""".strip()


def to_html(title: str, blocks: Sequence[Block]) -> str:
    """One page that needs nothing else: figures are in it, there are no scripts."""
    body = "\n".join(_html(block) for block in blocks)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{html.escape(title)}</title>\n<style>\n{STYLE}\n</style>\n</head>\n<body>\n"
        f"<h1>{html.escape(title)}</h1>\n{body}\n</body>\n</html>\n"
    )


def _html(block: Block) -> str:
    escape = html.escape
    if isinstance(block, Heading):
        return f"<h2>{escape(block.text)}</h2>"
    if isinstance(block, Text):
        return f"<p>{escape(block.text)}</p>"
    if isinstance(block, Code):
        return f"<pre><code>{escape(block.text)}</code></pre>"
    if isinstance(block, Figure):
        data = base64.b64encode(block.png).decode()
        image = f'<img width="{block.width}" alt="{escape(block.caption)}" src="data:image/png;base64,{data}">'
        return f"<figure>\n{image}\n<figcaption>{escape(block.caption)}</figcaption>\n</figure>"

    def cells(row: Sequence[str], kind: str) -> str:
        made = (
            f'<{kind} class="n">{escape(c)}</{kind}>' if i in block.numbers else f"<{kind}>{escape(c)}</{kind}>"
            for i, c in enumerate(row)
        )
        return "<tr>" + "".join(made) + "</tr>"

    rows = "\n".join(cells(row, "td") for row in block.rows)
    header = cells(block.header, "th")
    return f'<div class="wide"><table>\n<thead>{header}</thead>\n<tbody>\n{rows}\n</tbody>\n</table></div>'


def to_markdown(title: str, blocks: Sequence[Block], figures: str) -> str:
    """The same, with figures as files NAME.png in the folder `figures`."""
    return "\n\n".join([f"# {escaped(title)}", *(_markdown(block, figures) for block in blocks)]) + "\n"


def escaped(text: str) -> str:
    """Text that Markdown takes for nothing else."""
    return re.sub(r"([\\`*_{}\[\]<>|$#&~])", r"\\\1", text).replace("\n", " ")


def _markdown(block: Block, figures: str) -> str:
    if isinstance(block, Heading):
        return f"## {escaped(block.text)}"
    if isinstance(block, Text):
        return escaped(block.text)
    if isinstance(block, Code):
        fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", block.text)), default=0))
        return f"{fence}sh\n{block.text}\n{fence}"
    if isinstance(block, Figure):
        return f"![{escaped(block.caption)}]({figures}/{block.name}.png)\n\n{escaped(block.caption)}"
    rule = ["--:" if i in block.numbers else "---" for i in range(len(block.header))]
    rows = [[escaped(cell) for cell in row] for row in (block.header, *block.rows)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (rows[0], rule, *rows[1:]))
