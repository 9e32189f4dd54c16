"""The processes of a sweep: one per GPU, stopped, killed, failing and resumed; and the status table on a terminal.

fake_finetune.py stands in for the runs, so that a test takes a second; test_sweep.py has real ones.
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
from experiments.sweep import process, scheduler
from experiments.sweep.plan import PlannedRun
from experiments.sweep.runs import DONE, FAILED, RUNNING, WAITING, Status, SweepRun
from experiments.sweep.table import StatusTable
from vit_jax.locks import lock_folder

FAKE = str(Path(__file__).with_name("fake_finetune.py"))


@pytest.fixture(autouse=True)
def _fake_finetune(monkeypatch):
    monkeypatch.setattr(process, "PROGRAM", (sys.executable, FAKE, "experiments.finetune"))
    monkeypatch.setattr(scheduler, "POLL_SECONDS", 0.02)


def arguments(out, *, kind=0, models=("Pico_8",), more=()):
    command = ["--data", "digits", "--models", *models, "--scratch", "--out", str(out), *more]
    return [*command, "--", "--warmup-epochs", str(kind)]


def test_one_run_on_each_gpu(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7,9")
    models = ("Pico_4", "Pico_6", "Pico_8", "Nano_8")
    assert sweep.main(arguments(tmp_path / "s", kind=5, models=models, more=["--gpus", "2"])) == 0  # two at once
    attempts = [json.loads((tmp_path / "s" / model / "attempt.json").read_text()) for model in models]
    assert {run["device"] for run in attempts} == {"4", "7"}
    for device in ("4", "7"):
        first, second = sorted((run["start"], run["end"]) for run in attempts if run["device"] == device)
        assert first[1] < second[0]


def test_runs_go_one_after_another_without_the_gpus_flag(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert sweep.main(arguments(tmp_path / "s", models=("Pico_6", "Pico_8"))) == 0
    first, second = (json.loads((tmp_path / "s" / m / "attempt.json").read_text()) for m in ("Pico_6", "Pico_8"))
    assert first["end"] < second["start"]
    assert first["device"] is None
    assert scheduler.list_devices(3) == ["0", "1", "2"]


def test_more_gpus_than_are_visible_are_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4")
    assert sweep.main(arguments(tmp_path / "s", more=["--gpus", "2"])) == 2
    assert "--gpus 2: CUDA_VISIBLE_DEVICES has 1 (4)" in capsys.readouterr().err
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(("kind", "error"), [(1, "ended by SIGKILL, as when memory runs out"), (4, "the dog ate it")])
def test_a_killed_or_failed_run_is_not_done_and_is_tried_again(kind, error, tmp_path, capsys):
    assert sweep.main(arguments(tmp_path / "s", kind=kind)) == 1
    output = capsys.readouterr().out
    assert re.search(rf"Pico_8 +failed +- +- +\d+:\d\d  {error}", output)
    assert "0 of 1 runs done" in output
    assert f"try again with: python -m experiments.sweep --resume {tmp_path / 's'}" in output
    assert sweep.main(["--resume", str(tmp_path / "s")]) == 0
    output = capsys.readouterr().out
    assert re.search(r"Pico_8 +done +0\.5000", output)
    assert error not in output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("kind", [2, 3])
def test_a_signal_is_passed_on_and_the_run_does_not_count_as_failed(kind, number, tmp_path, capsys):
    """This holds when the run saves (2) and when the signal ends it immediately (3)."""
    out = tmp_path / "s"

    def send():
        while not (out / "Pico_8" / "started").exists():
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    sender = threading.Thread(target=send)
    sender.start()
    assert sweep.main(arguments(out, kind=kind, models=("Pico_8", "Pico_6"), more=["--gpus", "1"])) == 128 + number
    sender.join()
    output = capsys.readouterr().out
    assert "failed" not in output
    assert f"{number.name}: the runs have saved" in output
    assert f"python -m experiments.sweep --resume {out} --gpus 1" in output
    assert not (out / "Pico_6").exists()
    assert SweepRun(PlannedRun("Pico_8", "Pico_8", ()), out).status().state == WAITING
    (out / "Pico_6").mkdir()  # kind 0, so that it ends
    (out / "Pico_6" / "config.json").write_text('{"recipe": {"epochs": 2}, "kind": 0}')
    assert sweep.main(["--resume", str(out)]) == 0
    assert "2 of 2 runs done" in capsys.readouterr().out


def test_a_sweep_waits_for_a_process_that_a_dead_sweep_left(tmp_path, capsys):
    out = tmp_path / "s"
    earlier = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(1.5)", "experiments.finetune", "--out", str(out / "Pico_8")]
    )
    start = time.monotonic()
    assert sweep.main(arguments(out)) == 0
    assert time.monotonic() - start > 1
    assert earlier.wait() == 0
    assert f"waiting for process {earlier.pid} of an earlier sweep to save" in capsys.readouterr().out


def test_two_sweeps_in_one_folder_are_refused(tmp_path, capsys):
    assert sweep.main(arguments(tmp_path / "s")) == 0
    with lock_folder(tmp_path / "s", "runs this sweep", name="sweep.json.lock"):
        assert sweep.main(["--resume", str(tmp_path / "s")]) == 2
    assert "another process runs this sweep" in capsys.readouterr().err
    assert sweep.main(["--resume", str(tmp_path / "s")]) == 0


def test_a_resumed_quick_sweep_is_reported_too(tmp_path, monkeypatch):
    reported = []
    monkeypatch.setattr(report, "main", lambda argv: reported.append(argv) or 0)
    assert sweep.main(arguments(tmp_path / "s", kind=4, more=["--quick"])) == 1
    assert reported == []
    assert sweep.main(["--resume", str(tmp_path / "s")]) == 0
    assert reported == [[str(tmp_path / "s"), "--out", str(tmp_path / "s" / "report")]]


class Terminal(io.StringIO):
    """A terminal that understands moving the cursor up and erasing a line."""

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


class ScriptedRun(SweepRun):
    """A run that returns the listed statuses one after another."""

    def __init__(self, name, *statuses):
        super().__init__(PlannedRun(name, "Pico_8", ("--data", "digits", "--model", "Pico_8")), Path())
        self.statuses = list(statuses)

    def status(self):
        return self.statuses.pop(0)


def scripted_runs():
    long = "B_16_imagenet1k_learning_rate-3e-5_weight_decay-0.05_seed-1"
    waiting = Status(WAITING, 0, 0, None, 0.0)
    failed = Status(FAILED, 0, 2, None, 3.0, "something is wrong with it; " * 5)
    return [
        ScriptedRun("Pico_8", waiting, Status(RUNNING, 1, 2, 0.5, 8.2), Status(DONE, 2, 2, 0.75, 4000.0)),
        ScriptedRun(long, waiting, waiting, failed),
    ]


@pytest.mark.parametrize(("columns", "lines"), [(60, 24), (200, 24)])
def test_the_table_is_redrawn_in_place(columns, lines, monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(shutil, "get_terminal_size", lambda: os.terminal_size((columns, lines)))
    table = StatusTable(scripted_runs())
    for _ in range(3):
        table.refresh()
    assert len(screen.lines) == 4
    assert max(map(len, screen.lines)) < columns  # nothing is wrapped
    assert screen.lines[0].split()[:2] == ["run", "state"]
    assert re.fullmatch(r"Pico_8 +done +0\.7500 +- +1:06:40", screen.lines[1])
    assert re.match(r"B_16_.*seed-1 +failed", screen.lines[2])
    assert ("something is" in screen.lines[2]) == (columns > 100)
    assert screen.lines[3] == ""


def test_a_screen_with_too_few_lines_gets_a_line_per_change(monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(shutil, "get_terminal_size", lambda: os.terminal_size((200, 3)))
    table = StatusTable(scripted_runs())
    for _ in range(3):
        table.refresh()
    assert [line.split()[1] for line in screen.lines[:-1]] == ["state", "waiting", "waiting", "epoch", "done", "failed"]
