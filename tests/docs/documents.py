"""The documents as their parts: links, headings, code blocks and commands."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from vit_jax_command import PROGRAMS

ROOT = Path(__file__).parents[2]
TOP = ["README.md", "BUILD.md", "CONTRIBUTING.md", "CHANGELOG.md"]
DOCUMENTS = [ROOT / name for name in TOP] + sorted((ROOT / "docs").rglob("*.md"))
PROGRAM = re.compile(r"python -m (?P<module>experiments\.[a-z_]+|weights_convert)\b|vit-jax (?P<command>[a-z][\w-]*)")


@dataclass(frozen=True)
class Block:
    """A fenced code block.

    line:   of its first line of code, from 1
    needs:  what the comment <!-- needs: ... --> above it states, "" without one
    """

    document: Path
    line: int
    language: str
    text: str
    needs: str

    @property
    def name(self) -> str:
        """Where the block is, for a test's name."""
        return f"{self.document.relative_to(ROOT)}:{self.line}"


def name_document(document: Path) -> str:
    """Return a document's path in the repository."""
    return document.relative_to(ROOT).as_posix()


def without_code(text: str) -> str:
    """Return Markdown without its fenced blocks and code spans."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", "", text)


def list_links(document: Path) -> list[str]:
    """Return the targets of a document's links and images that are no web addresses."""
    targets = re.findall(r"\]\(([^)\s]+)\)", without_code(document.read_text()))
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def list_anchors(document: Path) -> set[str]:
    """Return the anchors of a document's headings that GitHub and the site agree on."""
    anchors = set()
    text = re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    for heading in re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE):
        bare = re.sub(r"[^\w\s-]", "", heading).strip().lower()
        github, site = bare.replace(" ", "-"), re.sub(r"[-\s]+", "-", bare)
        if github == site:
            anchors.add(site)
    return anchors


def list_blocks(document: Path, *languages: str) -> list[Block]:
    """Return a document's fenced blocks of these languages."""
    blocks, text = [], document.read_text()
    pattern = r"(?:<!-- needs: (?P<needs>[^>]+?) -->\n+)?^```(?P<language>\w+)[^\n]*\n(?P<text>.*?)^```$"
    for match in re.finditer(pattern, text, flags=re.MULTILINE | re.DOTALL):
        if match["language"] in languages:
            line = text[: match.start("text")].count("\n") + 1
            blocks.append(Block(document, line, match["language"], match["text"], match["needs"] or ""))
    return blocks


def list_commands(document: Path) -> list[tuple[str, list[str]]]:
    """Return the (module, arguments) of the programs that a document's code blocks start.

    Blocks are fenced with `sh`, or indented. Comments, continued lines and the prompt `$ ` are read as a shell does.
    """
    lines = [line for block in list_blocks(document, "sh", "console") for line in _join(block.text)]
    indented = re.findall(r"(?:^ {4}\S.*\n)(?:^ {4}.*\n)*", document.read_text(), flags=re.MULTILINE)
    lines += [line for block in indented for line in _join(block)]
    parts = [part.strip().removeprefix("$ ") for line in lines for part in line.split(" && ")]
    return [command for part in parts if (command := read_command(part))]


def read_command(text: str) -> tuple[str, list[str]] | None:
    """Return the (module, arguments) of a command line that starts a program, None for any other text."""
    match = PROGRAM.match(text)
    if not match:
        return None
    arguments = shlex.split(text[match.end() :], comments=True)
    if match["module"]:
        return match["module"], arguments
    program = PROGRAMS[match["command"]]
    return program.module.removesuffix(".__main__"), [match["command"]] * program.is_nested + arguments


def _join(text: str) -> list[str]:
    return text.replace("\\\n", " ").splitlines()
