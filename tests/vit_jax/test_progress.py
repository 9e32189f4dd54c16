"""Progress is printed as plain lines when the output is not a terminal, with the rate and the time left."""

import io
import re

import pytest

from vit_jax import progress as module
from vit_jax.progress import open_progress, write_line


@pytest.fixture(autouse=True)
def print_every_update(monkeypatch):
    monkeypatch.setattr(module, "LINE_SECONDS", 0.0)


def test_lines_have_count_rate_and_time_left():
    stream = io.StringIO()
    with open_progress(3, unit="images", description="predict", file=stream) as bar:
        for _ in range(3):
            bar.update()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2  # the caller reports the last update
    assert re.fullmatch(r"predict: 1/3 images, +[\d.?]+ images/s, [\d:?]+ left", lines[0])
    assert "\r" not in stream.getvalue()


def test_a_resumed_run_counts_from_where_it_stopped():
    stream = io.StringIO()
    with open_progress(10, unit="steps", initial=7, file=stream) as bar:
        bar.update()
    assert stream.getvalue().startswith("8/10 steps, ")


def test_other_lines_leave_no_control_characters_between_those_of_progress(capsys):
    with open_progress(3, unit="images") as bar:
        bar.update()
        write_line("skipped: a.png")
        bar.update()
    lines = capsys.readouterr().err.split("\n")
    assert [line.split(",")[0] for line in lines] == ["1/3 images", "skipped: a.png", "2/3 images", ""]
    assert "\r" not in "".join(lines)
