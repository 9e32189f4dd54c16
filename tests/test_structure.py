"""Imports run one way, are light and silent; names and sizes of modules; the documents agree with the tools."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ["vit_jax", "caption", "weights_convert", "experiments"]
BENCHMARKS = "experiments/benchmark/"
ABOVE_THE_CORE = {"__init__", "classes", "plot", "inference", "heat_map", "pipeline"}  # they use subpackages
ABOVE_ALL = ["vit_jax.plot", "vit_jax.pipeline", "vit_jax.viewer"]
NOT_IMPORTED_BY = {
    "core": ["vit_jax.explain", "vit_jax.data", "vit_jax.train", *ABOVE_ALL],
    "explain": ["vit_jax.data", "vit_jax.train", *ABOVE_ALL],
    "data": ["vit_jax.train", "vit_jax.explain", *ABOVE_ALL],
}
# Programs parse flags, libraries do not; these modules define the parser that all programs share.
PARSES_FLAGS = {"vit_jax/cli.py", "vit_jax/flag_files.py", "weights_convert/flags.py"}
POSIX_ONLY = {"fcntl", "grp", "posix", "pwd", "resource", "syslog", "termios"}


def modules(package: str) -> list[Path]:
    paths = sorted((ROOT / package).rglob("*.py"))
    assert paths
    return paths


def list_imported_names(path: Path) -> set[str]:
    """Return the dotted names of all imports of a module; `from a import b` gives a and a.b."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def list_imported_packages(path: Path) -> set[str]:
    """Return the top-level packages that a module imports."""
    return {name.split(".")[0] for name in list_imported_names(path)}


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_run_one_way(package):
    later = set(PACKAGES[PACKAGES.index(package) + 1 :])
    for path in modules(package):
        assert not list_imported_packages(path) & later, path
        name = path.relative_to(ROOT).as_posix()
        if name != "weights_convert/verify.py" and not name.startswith(BENCHMARKS):
            assert not list_imported_packages(path) & {"torch", "torchvision", "tensorflow"}, path


@pytest.mark.parametrize("part", NOT_IMPORTED_BY)
def test_imports_inside_vit_jax_run_one_way(part):
    """From the core to explain, data and train. No module imports the package itself, which imports them all."""
    if part == "core":
        paths = [path for path in (ROOT / "vit_jax").glob("*.py") if path.stem not in ABOVE_THE_CORE]
    else:
        paths = modules(f"vit_jax/{part}")
    for path in paths:
        names = list_imported_names(path)
        above = [name for name in names for prefix in NOT_IMPORTED_BY[part] if f"{name}.".startswith(f"{prefix}.")]
        assert not above, path


def test_no_library_module_imports_from_its_own_package():
    """The package imports all its modules, so that would be a cycle."""
    for package in ("vit_jax", "caption", "weights_convert"):
        for path in modules(package):
            tree = ast.parse(path.read_text())
            names = {
                a.name for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module == package for a in n.names
            }
            assert all(is_module(f"{package}/{name}") for name in names), path


def is_module(name: str) -> bool:
    return (ROOT / f"{name}.py").is_file() or (ROOT / name / "__init__.py").is_file()


def test_libraries_do_not_parse_flags():
    for package in ("vit_jax", "caption", "weights_convert"):
        for path in modules(package):
            name = path.relative_to(ROOT).as_posix()
            assert (
                path.name == "__main__.py" or name in PARSES_FLAGS or "argparse" not in list_imported_packages(path)
            ), path


@pytest.mark.parametrize("package", PACKAGES)
def test_no_function_or_class_has_its_modules_name(package):
    """Otherwise `from package import name` may give either. A package's own name counts for its __init__ module."""
    for path in modules(package):
        if path.name != "__main__.py":
            module = path.parent if path.name == "__init__.py" else path
            tree = ast.parse(path.read_text())
            definitions = {n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
            assert module.stem.startswith("_") or module.stem not in definitions, path


@pytest.mark.parametrize("package", PACKAGES)
def test_no_export_hides_a_module(package):
    for path in modules(package):
        if path.name == "__init__.py":
            names = {
                (alias.asname or alias.name, node.module)
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.ImportFrom)
                for alias in node.names
            }
            folder = path.parent.relative_to(ROOT).as_posix()
            hidden = {n for n, source in names if source != folder.replace("/", ".") and is_module(f"{folder}/{n}")}
            assert not hidden, path


def test_the_top_level_of_experiments_stays_small():
    names = {path.stem for path in (ROOT / "experiments").iterdir() if is_module(f"experiments/{path.stem}")}
    assert len(names - {"__init__"}) <= 12


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_imports_what_windows_lacks(package):
    for path in modules(package):
        assert not list_imported_packages(path) & POSIX_ONLY, path


def test_only_the_benchmark_imports_the_peers():
    """They need torch, which is not a dependency. The benchmark imports them only for a comparison."""
    for package in PACKAGES:
        for path in modules(package):
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


def test_modules_stay_short():
    for package in PACKAGES:
        for path in modules(package):
            assert len(path.read_text().splitlines()) <= 400, path


def resolve(name: str) -> object:
    """Import a dotted name: a module, or an attribute of one."""
    module, _, rest = name.partition(".")
    value = importlib.import_module(module)
    for part in rest.split("."):
        module = f"{module}.{part}"
        value = getattr(value, part) if hasattr(value, part) else importlib.import_module(module)
    return value


@pytest.mark.parametrize("document", ["README.md", "BUILD.md", "CONTRIBUTING.md", "docs/*.md"])
def test_documents_name_existing_files_and_objects(document):
    for file in ROOT.glob(document):
        text, packages = file.read_text(), "|".join(PACKAGES)
        for path in re.findall(rf"`((?:{packages}|tests|docs)/[\w./*]*)`", text):
            assert "NAME" in path or list(ROOT.glob(path.rstrip("/"))), f"{file.name}: {path}"
        for name in set(re.findall(rf"`((?:{packages})(?:\.\w+)+)", text)):
            resolve(name)
