"""Imports run one way, bring no torch and no TensorFlow, print nothing; the documents say what the tools do."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ["vit_jax", "caption", "weights_convert", "experiments"]
BENCHMARKS = "experiments/benchmark/"
POSIX_ONLY = {"fcntl", "grp", "posix", "pwd", "resource", "syslog", "termios"}


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_run_one_way(package):
    later = set(PACKAGES[PACKAGES.index(package) + 1 :])
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        assert not imported(path) & later, path
        place = path.relative_to(ROOT).as_posix()
        if place != "weights_convert/verify.py" and not place.startswith(BENCHMARKS):
            assert not imported(path) & {"torch", "torchvision", "tensorflow"}, path


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_imports_what_windows_lacks(package):
    for path in (ROOT / package).rglob("*.py"):
        assert not imported(path) & POSIX_ONLY, path


def test_only_the_benchmark_imports_the_peers():
    """They need torch, which is no dependency; the benchmark imports them when asked to compare."""
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            if not path.relative_to(ROOT).as_posix().startswith(BENCHMARKS):
                assert not re.search(r"^\s*(from|import) .*\bpeers\b", path.read_text(), re.MULTILINE), path


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_is_silent_and_light(package):
    code = (
        f"import {package}, sys; print([m for m in ('torch', 'tensorflow', 'matplotlib.pyplot') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "[]\n"
    assert done.stderr == ""


def test_the_check_command_runs_the_readmes_tests():
    readme = (ROOT / "README.md").read_text()
    command = re.search(r"^pip install .*pytest.*$", readme, re.MULTILINE)
    assert command is not None
    assert command.group() in (ROOT / ".ci" / "run").read_text()


def test_the_readmes_python_runs(tmp_path, monkeypatch):
    """As it stands there, but with a small checkpoint and small images."""
    import torch

    import tests.reference as reference

    torch.save(reference.tiny_torch(dim=64, num_heads=1).float().state_dict(), tmp_path / "B_16_imagenet1k.pth")
    monkeypatch.chdir(tmp_path)
    block = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    names = {}
    exec(block.group(1).replace("384, 384", "32, 32"), names)
    assert float(names["loss"]) > 0
    assert (tmp_path / "my_model" / "model.safetensors").is_file()


def test_modules_stay_short():
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            assert len(path.read_text().splitlines()) <= 400, path
