"""check_wheel.py WHEEL: the wheel holds every file of the packages and nothing else, and its command runs anywhere."""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("vit_jax", "caption", "weights_convert", "experiments")
COMMAND = "vit_jax_command.py"


def list_sources() -> set[str]:
    """Return the files of the packages, with their templates and py.typed, and the module of the command."""
    files = (path for package in PACKAGES for path in (ROOT / package).rglob("*"))
    sources = {path.relative_to(ROOT).as_posix() for path in files if path.is_file() and path.suffix != ".pyc"}
    return sources | {COMMAND}


def check_contents(wheel: Path) -> list[str]:
    """Return what is wrong with the files of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    info = wheel.name.removesuffix("-py3-none-any.whl") + ".dist-info/"
    files, sources = {name for name in names if not name.startswith(info)}, list_sources()
    problems = [f"missing: {name}" for name in sorted(sources - files)]
    problems += [f"not of a package: {name}" for name in sorted(files - sources)]
    problems += [] if f"{info}licenses/LICENSE" in names else ["missing: the licence"]
    return problems


def check_command(wheel: Path) -> list[str]:
    """Install a wheel without its dependencies, which --version does not import, and run the command elsewhere."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", f"{folder}/venv"], check=True)
        (scripts,) = (path for name in ("bin", "Scripts") if (path := Path(folder, "venv", name)).is_dir())
        install = [str(scripts / "python"), "-m", "pip", "install", "--quiet", "--no-deps", str(wheel.absolute())]
        subprocess.run(install, check=True)
        done = subprocess.run([str(scripts / "vit-jax"), "--version"], cwd=folder, capture_output=True, text=True)
    version = wheel.name.split("-")[1]
    return [] if done.stdout == f"vit-jax {version}\n" else [f"vit-jax --version: {done.stdout}{done.stderr}"]


def main() -> int:
    """Check the wheel. Return 1 and print what is wrong, if anything is."""
    wheel = Path(sys.argv[1])
    problems = check_contents(wheel) + check_command(wheel)
    print("\n".join(problems) or f"{wheel.name}: complete, and vit-jax runs")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
