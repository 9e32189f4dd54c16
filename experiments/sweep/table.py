"""The status table of a sweep: redrawn in place on a terminal; elsewhere, one line per change."""

import shutil
import sys
from collections.abc import Sequence
from typing import NamedTuple

from experiments.sweep.runs import FAILED, RUNNING, SweepRun
from experiments.sweep.study import published_accuracy
from vit_jax.notes import is_quiet


class Row(NamedTuple):
    """The cells of a run; best is a validation accuracy or mAP, published an accuracy."""

    name: str
    state: str
    best: str
    published: str
    error: str
    time: str


HEADER = Row("run", "state", "best val", "published", "", "time")
OTHER_COLUMNS = 46  # characters of the columns after the name
MIN_NAME = 12  # characters


def make_row(run: SweepRun, published: float | None) -> Row:
    """Return the current row of a run."""
    status = run.status()
    state = f"epoch {status.epoch}/{status.epochs}" if status.state == RUNNING and status.epochs else status.state
    best, reference = ("-" if value is None else f"{value:.4f}" for value in (status.best, published))
    minutes, seconds = divmod(round(status.seconds), 60)
    hours, minutes = divmod(minutes, 60)
    time = f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
    return Row(run.planned.name, state, best, reference, status.error if status.state == FAILED else "", time)


def format_row(row: Row, width: int) -> str:
    """Return a row as text, with the name in `width` characters: a longer one loses its middle."""
    name = row.name
    if len(name) > width:
        name = f"{name[: width // 2]}…{name[len(name) - (width - width // 2 - 1) :]}"
    text = f"{name:{width}}  {row.state:<12}  {row.best:>8}  {row.published:>9}  {row.time:>7}"
    return f"{text}  {row.error}".rstrip()


class StatusTable:
    """The table of a sweep's runs, as last printed."""

    def __init__(self, runs: Sequence[SweepRun]):
        self._runs = [(run, published_accuracy(run.planned.config())) for run in runs]
        self._width = max(len(HEADER.name), *(len(run.planned.name) for run in runs))
        self._printed: list[Row] = []
        self._lines_drawn = 0

    def refresh(self) -> None:
        """Print what has changed, unless the program is quiet.

        Off a terminal, or when it has too few lines, a changed time alone is not printed.
        """
        if not is_quiet():
            self._refresh()

    def finish(self) -> None:
        """Print the last changes; in a quiet program, the whole table."""
        self._refresh()

    def _refresh(self) -> None:
        rows = [make_row(*run) for run in self._runs]
        size = shutil.get_terminal_size()
        if sys.stdout.isatty() and len(rows) + 2 <= size.lines:
            self._redraw(rows, size.columns)
        else:
            previous = [row._replace(time="") for row in self._printed]
            changed = [row for row in rows if row._replace(time="") not in previous]
            for row in changed if self._printed else [HEADER, *rows]:
                print(format_row(row, self._width), flush=True)
        self._printed = rows

    def _redraw(self, rows: Sequence[Row], columns: int) -> None:
        width = min(self._width, max(MIN_NAME, columns - OTHER_COLUMNS))
        lines = [format_row(row, width)[: columns - 1] for row in (HEADER, *rows)]
        cursor_up = f"\x1b[{self._lines_drawn}A" if self._lines_drawn else ""
        print(cursor_up + "".join(f"\x1b[2K{line}\n" for line in lines), end="", flush=True)
        self._lines_drawn = len(lines)
