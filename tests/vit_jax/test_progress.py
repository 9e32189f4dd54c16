"""Progress is plain lines where there is no terminal, and says the rate and the time left."""

import io
import re

import pytest

from vit_jax import progress as module
from vit_jax.progress import progress


@pytest.fixture(autouse=True)
def often(monkeypatch):
    monkeypatch.setattr(module, "LINE_SECONDS", 0.0)


def test_lines_have_count_rate_and_time_left():
    stream = io.StringIO()
    with progress(3, unit="images", description="predict", file=stream) as bar:
        for _ in range(3):
            bar.update()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2  # the last update ends the work, and the program reports that itself
    assert re.fullmatch(r"predict: 1/3 images, +[\d.?]+ images/s, [\d:?]+ left", lines[0])
    assert "\r" not in stream.getvalue()


def test_a_resumed_run_counts_from_where_it_was():
    stream = io.StringIO()
    with progress(10, unit="steps", initial=7, file=stream) as bar:
        bar.update()
    assert stream.getvalue().startswith("8/10 steps, ")
