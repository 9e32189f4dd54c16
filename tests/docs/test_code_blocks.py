"""The Python of the documents runs; where it needs a network or weights, its imports and names exist.

A block that cannot run here has the comment <!-- needs: network --> (or weights, images, ...) above it. The blocks of a
document run in order, in one namespace and in a folder with `runs/digits`, a small digits run, `runs/scenes`, a small
captioner's run, `pictures/`, and this repository's `docs/`.
"""

import ast
import importlib
import tarfile

import matplotlib.pyplot as plt
import pytest

from tests.docs.documents import DOCUMENTS, ROOT, list_blocks, name_document
from tests.test_structure import resolve

NOT_INSTALLED = {"torch", "timm"}  # in every lane of the tests
SAVED = ROOT / "tests/experiments/saved"
BLOCKS = [block for document in DOCUMENTS for block in list_blocks(document, "python")]
RUN = [document for document in DOCUMENTS if any(not b.needs for b in BLOCKS if b.document == document)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with what the documents' Python reads."""
    for name, run in (("digits_run", "digits"), ("caption_run", "scenes")):
        with tarfile.open(SAVED / f"{name}.tar.gz") as archive:
            archive.extractall(tmp_path, filter="data")
        (tmp_path / "runs").mkdir(exist_ok=True)
        (tmp_path / name / "run").rename(tmp_path / "runs" / run)
    (tmp_path / "caption_run/pictures").rename(tmp_path / "pictures")
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    plt.close("all")


def list_names(tree: ast.Module) -> set[str]:
    """Return the dotted names that code uses of the modules that it imports."""
    modules, names = {}, set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:  # `import a.b` binds a
                top = alias.name.split(".")[0]
                modules |= {alias.asname: alias.name} if alias.asname else {top: top}
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            root, _, rest = ast.unparse(node).partition(".")
            if root in modules and all(part.isidentifier() for part in rest.split(".")):
                names.add(f"{modules[root]}.{rest}")
    return names


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.name)
def test_names_of_a_block_exist(block):
    for name in list_names(ast.parse(block.text)):
        try:
            resolve(name) if "." in name else importlib.import_module(name)
        except ModuleNotFoundError as missing:
            if missing.name not in NOT_INSTALLED:
                raise


@pytest.mark.parametrize("document", RUN, ids=name_document)
def test_blocks_of_a_document_run(document, folder):
    namespace: dict[str, object] = {"__name__": "document"}
    for block in BLOCKS:
        if block.document == document and not block.needs:
            code = "\n" * (block.line - 1) + block.text  # so that a traceback has the document's line
            exec(compile(code, str(document), "exec"), namespace)


def test_the_readme_is_short_and_shows_python():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 130
    assert [block for block in BLOCKS if block.document == ROOT / "README.md" and not block.needs]
