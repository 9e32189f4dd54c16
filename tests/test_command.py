"""The command vit-jax: every program as a subcommand, of this library even next to other packages of the same names."""

import argparse
import importlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import vit_jax
import vit_jax_command
from experiments.sweep import process
from tests.golden.behaviour_data import COMMANDS, parser_of
from vit_jax.cli import program_name
from vit_jax_command import PROGRAMS, main, program_command
from weights_convert import startup

ROOT = Path(__file__).parent.parent
VERSION = f"vit-jax {vit_jax.__version__}\n"


@pytest.fixture
def beside_others(tmp_path, monkeypatch):
    """A current folder, also on PYTHONPATH, whose packages have the library's names."""
    for name in vit_jax_command.PACKAGES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise SystemExit('imported the wrong {name}')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


@pytest.fixture
def unchanged_signals(monkeypatch):
    """main() is a process's own and sets signal handlers: here it leaves those of the tests."""
    monkeypatch.setattr(startup, "exit_on_signals", lambda: None)


def start(*command, **options):
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def test_every_program_is_a_subcommand():
    names = {path.stem for path in (ROOT / "experiments").glob("*.py")}
    names |= {path.parent.name for path in (ROOT / "experiments").glob("*/__main__.py")}
    (subcommands,) = (
        action.choices
        for action in parser_of("weights_convert")._actions
        if isinstance(action, argparse._SubParsersAction)
    )
    assert set(PROGRAMS) == names - {"__init__"} | set(subcommands)
    assert {f"experiments.{name}" for name in names - {"__init__"}} | {"weights_convert"} == set(COMMANDS)
    for program in PROGRAMS.values():
        assert callable(importlib.import_module(program.module).main)


def test_a_program_gets_the_arguments_after_its_name(monkeypatch, unchanged_signals):
    calls = []
    monkeypatch.setattr(sys, "argv", ["/bin/vit-jax"])
    monkeypatch.setattr(vit_jax_command, "import_module", lambda module: argparse.Namespace(main=lambda: run(module)))

    def run(module):
        calls.append((module, sys.argv))
        return 7

    for arguments in (["predict", "m", "--bs", "2"], ["train-caption"], ["convert", "f", "--out", "o"]):
        sys.argv = ["/bin/vit-jax", *arguments]
        assert main() == 7
    assert calls == [
        ("experiments.predict", ["/bin/vit-jax", "m", "--bs", "2"]),
        ("experiments.train_caption.__main__", ["/bin/vit-jax"]),
        ("weights_convert.__main__", ["/bin/vit-jax", "convert", "f", "--out", "o"]),
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fintune"], "unknown command 'fintune': one of finetune, "),
        (["fintune"], "; did you mean finetune? (see vit-jax --help)"),
        ([], "no command; give one of finetune, "),
        (["--quick", "sweep"], "unknown flag --quick; give one of finetune, "),
    ],
)
def test_a_wrong_command_is_one_line(arguments, message, capsys, unchanged_signals):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert len(error.splitlines()) == 1


def test_programs_are_named_as_they_were_started(monkeypatch):
    names = "experiments.train_caption", "weights_convert"
    monkeypatch.setattr(sys, "argv", ["/usr/bin/vit-jax", "--out", "run"])
    assert list(map(program_name, names)) == ["vit-jax train_caption", "vit-jax"]
    monkeypatch.setattr(sys, "argv", ["/somewhere/experiments/finetune.py"])
    assert list(map(program_name, names)) == ["python -m experiments.train_caption", "python -m weights_convert"]


@pytest.mark.parametrize(
    "arguments",
    [[str(ROOT / "vit_jax_command.py")], [str(ROOT / "vit_jax_command.py"), "finetune"], ["-m", "weights_convert"],
     ["-m", "experiments.explain"]],
)  # fmt: skip
def test_the_version_does_not_import_jax(arguments):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments, "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == VERSION
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "runpy" in imported
    assert not imported & {"jax", "numpy"}


def test_the_list_of_programs_does_not_import_jax(monkeypatch, capsys):
    code = "import sys, vit_jax_command; vit_jax_command.main(['--help']); sys.exit('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert all(f"  {name} " in done.stdout for name in PROGRAMS)


def test_a_reader_that_leaves_early_ends_the_command_silently():
    for flag in ("--help", "--version"):
        reading, writing = os.pipe()
        os.close(reading)
        child = subprocess.Popen([*program_command(flag)], stdout=writing, stderr=subprocess.PIPE, text=True)
        os.close(writing)
        assert (child.communicate(timeout=100)[1], child.returncode) == ("", 141)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_during_the_imports_ends_the_command_silently(number, code):
    child = start(*program_command("finetune"))
    time.sleep(0.5)
    child.send_signal(number)
    assert (*child.communicate(timeout=100), child.returncode) == ("", "", code)


@pytest.mark.slow
def test_a_program_is_the_librarys_beside_packages_of_the_same_names(beside_others):
    done = subprocess.run([*program_command("list")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "layouts:" in done.stdout


@pytest.mark.slow
def test_a_sweep_starts_the_librarys_program_beside_packages_of_the_same_names(beside_others):
    done = subprocess.run([*process.PROGRAM, "--epochs", "0"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: argument --epochs: '0' is not a whole number of at least 1")


def test_a_spawned_process_has_the_librarys_packages_beside_others(beside_others):
    """As benchmarks start their workers, from the script that pip writes for the command."""
    script = beside_others / "vit-jax"
    script.write_text(
        "import multiprocessing, sys\n"
        f"sys.path.append({str(ROOT)!r})\n"
        "from vit_jax_command import main\n"
        "if __name__ == '__main__':\n"
        "    from weights_convert.startup import describe_version\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "        print(pool.apply(describe_version))\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == (VERSION, "")
