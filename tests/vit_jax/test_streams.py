"""A command's output: any encoding, and a reader that closes the pipe."""

import io
import os
import sys

import pytest

from vit_jax import InputError
from vit_jax.errors import one_line_errors


@pytest.fixture
def broken_pipe():
    """Return a stream into a pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream:
        yield stream


@pytest.mark.parametrize("lines", [1, 100_000], ids=["at the end", "in the middle"])
def test_a_closed_pipe_ends_a_command_silently(lines, broken_pipe, capsys, monkeypatch):
    ended = []

    @one_line_errors
    def main():
        for _ in range(lines):
            print("some text")
        ended.append(True)
        return 0

    monkeypatch.setattr(sys, "stdout", broken_pipe)
    assert main() == 141
    assert ended == [True] * (lines == 1)
    assert capsys.readouterr().err == ""
    broken_pipe.flush()  # as Python does at exit


def test_an_exit_by_the_parser_flushes_too(broken_pipe, monkeypatch):
    @one_line_errors
    def main():
        print("help")
        sys.exit(0)

    monkeypatch.setattr(sys, "stdout", broken_pipe)
    assert main() == 141


def test_an_error_is_reported_though_the_pipe_is_closed(broken_pipe, capsys, monkeypatch):
    @one_line_errors
    def main():
        print("some text")
        raise InputError("wrong\ninput")

    monkeypatch.setattr(sys, "stdout", broken_pipe)
    assert main() == 2
    assert capsys.readouterr().err == "error: wrong input\n"
    broken_pipe.flush()


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])
def test_any_text_is_printed_in_any_encoding(errors, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors=errors)
    monkeypatch.setattr(sys, "stdout", stream)

    @one_line_errors
    def main():
        print("café 猫 \udcff")
        return 0

    assert main() == 0
    assert stream.buffer.getvalue() == rb"caf\xe9 \u732b \udcff" + b"\n"


def test_a_command_without_a_console(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    assert one_line_errors(lambda: 0)() == 0
