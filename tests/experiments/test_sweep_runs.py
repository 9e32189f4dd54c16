"""A sweep's processes: one on each GPU, stopped, killed, failing, gone on with; the table on a terminal.

The runs are pretended (pretended_run.py), so that a test takes a second; test_sweep.py has real ones.
"""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from experiments.report import __main__ as report
from experiments.sweep import __main__ as sweep
from experiments.sweep import runs as sweep_runs
from experiments.sweep.plan import PlannedRun, lock_sweep
from experiments.sweep.runs import DONE, FAILED, RUNNING, WAITING, Status, SweepRun
from experiments.sweep.table import Board

PRETENDED = str(Path(__file__).with_name("pretended_run.py"))


@pytest.fixture(autouse=True)
def _pretended(monkeypatch):
    monkeypatch.setattr(sweep_runs, "PROGRAM", (sys.executable, PRETENDED, "experiments.finetune"))
    monkeypatch.setattr(sweep, "LOOK_SECONDS", 0.02)


def arguments(out, *, kind=0, models=("Pico_8",), more=()):
    given = ["--data", "digits", "--models", *models, "--scratch", "--out", str(out), *more]
    return [*given, "--", "--warmup-epochs", str(kind)]


def test_one_run_on_each_gpu(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7,9")
    models = ("Pico_4", "Pico_6", "Pico_8", "Nano_8")
    assert sweep.main(arguments(tmp_path / "s", kind=5, models=models, more=["--gpus", "2"])) == 0  # two at once
    told = [json.loads((tmp_path / "s" / model / "told.json").read_text()) for model in models]
    assert {run["device"] for run in told} == {"4", "7"}
    for device in ("4", "7"):
        first, second = sorted((run["began"], run["ended"]) for run in told if run["device"] == device)
        assert first[1] < second[0]


def test_one_after_another_where_no_gpus_are_asked_for(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert sweep.main(arguments(tmp_path / "s", models=("Pico_6", "Pico_8"))) == 0
    first, second = (json.loads((tmp_path / "s" / m / "told.json").read_text()) for m in ("Pico_6", "Pico_8"))
    assert first["ended"] < second["began"]
    assert first["device"] is None
    assert sweep.devices(3) == ["0", "1", "2"]


def test_more_gpus_than_are_seen_are_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4")
    assert sweep.main(arguments(tmp_path / "s", more=["--gpus", "2"])) == 2
    assert "--gpus 2: CUDA_VISIBLE_DEVICES has 1 (4)" in capsys.readouterr().err
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(("kind", "error"), [(1, "ended by SIGKILL, as when memory runs out"), (4, "the dog ate it")])
def test_a_run_that_is_killed_or_fails_is_not_done_and_is_tried_again(kind, error, tmp_path, capsys):
    assert sweep.main(arguments(tmp_path / "s", kind=kind)) == 1
    told = capsys.readouterr().out
    assert re.search(rf"Pico_8 +failed +- +- +0:00  {error}", told)
    assert "0 of 1 runs done" in told
    assert f"try again with: python -m experiments.sweep --resume {tmp_path / 's'}" in told
    assert sweep.main(["--resume", str(tmp_path / "s")]) == 0
    told = capsys.readouterr().out
    assert re.search(r"Pico_8 +done +0\.5000", told)
    assert error not in told


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("kind", [2, 3])
def test_a_signal_is_passed_on_and_the_run_is_no_failure(kind, number, tmp_path, capsys):
    """Whether it saves (2) or has no time to notice what it is told (3)."""
    out = tmp_path / "s"

    def send():
        while not (out / "Pico_8" / "begun").exists():
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    sender = threading.Thread(target=send)
    sender.start()
    assert sweep.main(arguments(out, kind=kind, models=("Pico_8", "Pico_6"), more=["--gpus", "1"])) == 128 + number
    sender.join()
    told = capsys.readouterr().out
    assert "failed" not in told
    assert f"{number.name}: the runs have saved" in told
    assert f"python -m experiments.sweep --resume {out} --gpus 1" in told
    assert not (out / "Pico_6").exists()
    assert SweepRun(PlannedRun("Pico_8", "Pico_8", ()), out).status().state == WAITING
    (out / "Pico_6").mkdir()  # it shall not wait for ever in its turn
    (out / "Pico_6" / "config.json").write_text('{"recipe": {"epochs": 2}, "kind": 0}')
    assert sweep.main(["--resume", str(out)]) == 0
    assert "2 of 2 runs done" in capsys.readouterr().out


def test_a_process_of_a_sweep_that_died_is_waited_for(tmp_path, capsys):
    out = tmp_path / "s"
    earlier = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(1.5)", "experiments.finetune", "--out", str(out / "Pico_8")]
    )
    began = time.monotonic()
    assert sweep.main(arguments(out)) == 0
    assert time.monotonic() - began > 1
    assert earlier.wait() == 0
    assert f"waiting for process {earlier.pid} of an earlier sweep to save" in capsys.readouterr().out


def test_two_sweeps_in_one_folder(tmp_path, capsys):
    assert sweep.main(arguments(tmp_path / "s")) == 0
    with lock_sweep(tmp_path / "s"):
        assert sweep.main(["--resume", str(tmp_path / "s")]) == 2
    assert "another process is at this sweep" in capsys.readouterr().err
    assert sweep.main(["--resume", str(tmp_path / "s")]) == 0


def test_a_quick_sweep_has_its_report_when_it_is_resumed_too(tmp_path, monkeypatch):
    reported = []
    monkeypatch.setattr(report, "main", lambda argv: reported.append(argv) or 0)
    assert sweep.main(arguments(tmp_path / "s", kind=4, more=["--quick"])) == 1
    assert reported == []
    assert sweep.main(["--resume", str(tmp_path / "s")]) == 0
    assert reported == [[str(tmp_path / "s"), "--out", str(tmp_path / "s" / "report")]]


class Terminal(io.StringIO):
    """A screen that lines are written on, and a cursor that can go up."""

    def __init__(self):
        super().__init__()
        self.lines, self.row = [""], 0

    def isatty(self):
        return True

    def write(self, text):
        for up, erased, end, letters in re.findall(r"\x1b\[(\d+)A|(\x1b\[2K)|(\n)|([^\x1b\n]+)", text):
            if up:
                self.row -= int(up)
            elif erased:
                self.lines[self.row] = ""
            elif end:
                self.row += 1
                self.lines += [""] * (self.row == len(self.lines))
            else:
                self.lines[self.row] += letters
        return len(text)


class Told(SweepRun):
    """A run of which the status is told."""

    def __init__(self, name, *statuses):
        super().__init__(PlannedRun(name, "Pico_8", ("--data", "digits", "--model", "Pico_8")), Path())
        self.statuses = list(statuses)

    def status(self):
        return self.statuses.pop(0)


def told_runs():
    long = "B_16_imagenet1k_learning_rate-3e-5_weight_decay-0.05_seed-1"
    waiting = Status(WAITING, 0, 0, None, 0.0)
    ended = Status(FAILED, 0, 2, None, 3.0, "something is wrong with it; " * 5)
    return [
        Told("Pico_8", waiting, Status(RUNNING, 1, 2, 0.5, 8.2), Status(DONE, 2, 2, 0.75, 4000.0)),
        Told(long, waiting, waiting, ended),
    ]


@pytest.mark.parametrize(("columns", "lines"), [(60, 24), (200, 24)])
def test_the_table_is_redrawn_in_place(columns, lines, monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(shutil, "get_terminal_size", lambda: os.terminal_size((columns, lines)))
    board = Board(told_runs())
    for _ in range(3):
        board.show()
    assert len(screen.lines) == 4
    assert max(map(len, screen.lines)) < columns  # nothing is wrapped
    assert screen.lines[0].split()[:2] == ["run", "state"]
    assert re.fullmatch(r"Pico_8 +done +0\.7500 +- +1:06:40", screen.lines[1])
    assert re.match(r"B_16_.*seed-1 +failed", screen.lines[2])
    assert ("something is" in screen.lines[2]) == (columns > 100)
    assert screen.lines[3] == ""


def test_more_runs_than_lines_and_pipes_get_a_line_for_each_change(monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(shutil, "get_terminal_size", lambda: os.terminal_size((200, 3)))
    board = Board(told_runs())
    for _ in range(3):
        board.show()
    assert [line.split()[1] for line in screen.lines[:-1]] == ["state", "waiting", "waiting", "epoch", "done", "failed"]
