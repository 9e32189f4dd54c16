"""The live table of a sweep: redrawn in place on a terminal, a line for each change elsewhere."""

import shutil
import sys
from collections.abc import Sequence
from typing import NamedTuple

from experiments.sweep.runs import FAILED, RUNNING, SweepRun
from experiments.sweep.study import published_accuracy


class Row(NamedTuple):
    """What the table tells of a run; best and published are validation accuracies."""

    name: str
    state: str
    best: str
    published: str
    error: str
    time: str


HEADER = Row("run", "state", "best val", "published", "", "time")
BESIDE = 46  # letters of the columns beside the name
LEAST = 12


def row_of(run: SweepRun, known: float | None) -> Row:
    """Where a run stands now, beside the accuracy that the study reports."""
    status = run.status()
    state = f"epoch {status.epoch}/{status.epochs}" if status.state == RUNNING and status.epochs else status.state
    best, told = ("-" if value is None else f"{value:.4f}" for value in (status.best, known))
    minutes, seconds = divmod(round(status.seconds), 60)
    hours, minutes = divmod(minutes, 60)
    time = f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
    return Row(run.planned.name, state, best, told, status.error if status.state == FAILED else "", time)


def line_of(row: Row, width: int) -> str:
    """A row as text, the name in `width` letters, the middle of a longer one left out."""
    name = row.name
    if len(name) > width:
        name = f"{name[: width // 2]}…{name[len(name) - (width - width // 2 - 1) :]}"
    text = f"{name:{width}}  {row.state:<12}  {row.best:>8}  {row.published:>9}  {row.time:>7}"
    return f"{text}  {row.error}".rstrip()


class Board:
    """The table of a sweep's runs, as it was last shown."""

    def __init__(self, runs: Sequence[SweepRun]):
        self._runs = [(run, published_accuracy(run.planned.config())) for run in runs]
        self._width = max(len(HEADER.name), *(len(run.planned.name) for run in runs))
        self._shown: list[Row] = []
        self._drawn = 0

    def show(self) -> None:
        """What has changed since it was last shown; a time that runs on is no change but on a terminal."""
        rows = [row_of(*run) for run in self._runs]
        size = shutil.get_terminal_size()
        if sys.stdout.isatty() and len(rows) + 2 <= size.lines:
            width = min(self._width, max(LEAST, size.columns - BESIDE))
            lines = [line_of(row, width)[: size.columns - 1] for row in (HEADER, *rows)]
            up = f"\x1b[{self._drawn}A" if self._drawn else ""
            print(up + "".join(f"\x1b[2K{line}\n" for line in lines), end="", flush=True)
            self._drawn = len(lines)
        else:
            before = [row._replace(time="") for row in self._shown]
            changed = [row for row in rows if row._replace(time="") not in before]
            for row in changed if self._shown else [HEADER, *rows]:
                print(line_of(row, self._width), flush=True)
        self._shown = rows
