"""The notebooks of docs/notebooks run, and are committed with their outputs."""

import ast
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.docs.documents import ROOT
from tests.docs.test_code_blocks import list_names
from tests.test_structure import resolve

NOTEBOOKS = sorted((ROOT / "docs/notebooks").glob("*.ipynb"))
MAX_BYTES = 500_000


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def code_cells(path: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_as_it_ran(path):
    nbformat.validate(read(path))
    assert path.stat().st_size < MAX_BYTES
    cells = code_cells(path)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [output for cell in cells for output in cell.outputs if output.output_type == "error"]
    assert [output for cell in cells for output in cell.outputs if "image/png" in output.get("data", {})]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_says_how_to_install_the_library(path):
    """The package is not published: installing it by name could bring another one."""
    first = code_cells(path)[0]
    assert first.source == "import vit_jax  # from a clone: pip install -c constraints.txt ."
    assert not first.outputs
    assert not any("%pip" in cell.source for cell in code_cells(path))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_names_of_a_notebook_exist(path):
    sources = [re.sub(r"^(\s*)[!%].*", r"\1pass", cell.source, flags=re.MULTILINE) for cell in code_cells(path)]
    for name in list_names(ast.parse("\n".join(sources))):
        if name.split(".")[0] in ("vit_jax", "caption", "weights_convert") and "." in name:
            resolve(name)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = read(path)
    NotebookClient(
        notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
