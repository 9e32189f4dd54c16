"""Signals end a command, whatever it is doing; ignored signals stay ignored."""

import gc
import signal
import subprocess
import sys
import threading
import time

import pytest

from vit_jax.errors import one_line_errors
from vit_jax.interruption import Interruption, interruptible


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_command(number, code, capsys):
    before = signal.getsignal(number)
    cleaned = []

    @one_line_errors
    def main():
        try:
            signal.raise_signal(number)
        finally:
            cleaned.append(True)
        return 0

    assert main() == code
    assert cleaned == [True]
    assert capsys.readouterr().err == "\ninterrupted\n"
    assert signal.getsignal(number) is before


def test_a_signal_in_a_callback_of_the_garbage_collector_is_not_lost(capsys):
    """Python drops what such callbacks raise; jax has one, in which a program spends much of its start."""

    def callback(phase, info):
        gc.callbacks.remove(callback)
        signal.raise_signal(signal.SIGINT)

    @interruptible()
    def work():
        gc.callbacks.append(callback)
        gc.collect(0)
        time.sleep(30)

    start = time.monotonic()
    with pytest.raises(Interruption, match="SIGINT"):
        work()
    assert time.monotonic() - start < 10  # it ends the sleep
    assert capsys.readouterr().err == ""


def test_ignored_signals_stay_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interruptible():
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_leave_signals_alone():
    before, seen = signal.getsignal(signal.SIGINT), []

    def run():
        with interruptible():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [before]


def test_an_interrupted_program_ends_without_finalizers():
    """A computation in a thread of jax may crash in them."""
    code = (
        "import atexit, signal, sys\n"
        "from weights_convert.startup import exit_on_signals\n"
        "exit_on_signals()\n"
        "from vit_jax.errors import one_line_errors\n"
        "@one_line_errors\n"
        "def main():\n"
        "    print('begun')\n"
        "    signal.raise_signal(signal.SIGTERM)\n"
        "atexit.register(print, 'finalized')\n"
        "sys.exit(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (143, "begun\n", "\ninterrupted\n")


def test_a_second_signal_exits_at_once():
    code = (
        "import signal, time\n"
        "from vit_jax.interruption import interruptible\n"
        "with interruptible():\n"
        "    try:\n"
        "        signal.raise_signal(signal.SIGINT)\n"
        "    finally:\n"
        "        signal.raise_signal(signal.SIGTERM)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (143, "", "")
