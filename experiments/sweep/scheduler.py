"""Running the runs of a sweep: one per device at a time, until all have ended or a signal stops them."""

import os
import signal
import time
from collections.abc import Sequence

from experiments.sweep.process import find_process
from experiments.sweep.runs import SweepRun, unfinished_runs
from experiments.sweep.table import StatusTable
from vit_jax import InputError
from vit_jax.notes import note
from vit_jax.train.signals import Interrupt

POLL_SECONDS = 0.5
SAVE_SECONDS = 300.0  # that a stopped run may take to save
EARLIER_SECONDS = 120.0  # that a run of an earlier sweep, which died, may take to save


def list_devices(gpus: int | None) -> list[str | None]:
    """Return the CUDA device of each simultaneous run; [None] for one run that uses all devices.

    Raises InputError when CUDA_VISIBLE_DEVICES names fewer devices.
    """
    if gpus is None:
        return [None]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [str(index) for index in range(gpus)] if visible is None else [n for n in visible.split(",") if n]
    if len(names) < gpus:
        raise InputError(f"--gpus {gpus}: CUDA_VISIBLE_DEVICES has {len(names)} ({visible}); give no more than those")
    return list(names[:gpus])


def run_sweep(runs: Sequence[SweepRun], devices: Sequence[str | None]) -> int | None:
    """Run everything that is not done, one run per device at a time. Return the signal that stopped it, or None."""
    table = StatusTable(runs)
    waiting = unfinished_runs(runs)
    free = list(devices)
    running: list[tuple[SweepRun, str | None]] = []
    with Interrupt() as interrupt:
        try:
            wait_for_earlier(waiting, interrupt)
            while interrupt.signal is None and (waiting or running):
                while waiting and free:
                    running.append((waiting.pop(0), free.pop(0)))
                    running[-1][0].start(running[-1][1])
                table.refresh()
                time.sleep(POLL_SECONDS)
                free += [device for run, device in running if run.poll()]
                running = [(run, device) for run, device in running if run.process is not None]
        finally:
            for run, _ in running:
                run.stop(interrupt.signal or signal.SIGTERM)
            for run, _ in running:
                run.wait(SAVE_SECONDS)
        table.finish()
        return interrupt.signal


def wait_for_earlier(runs: Sequence[SweepRun], interrupt: Interrupt) -> None:
    """Wait until the processes of a sweep that died have saved, or until a signal.

    Raises InputError when one does not end.
    """
    start, has_printed = time.monotonic(), False
    for run in runs:
        while interrupt.signal is None and (pid := find_process(run.folder)) is not None:
            if time.monotonic() - start > EARLIER_SECONDS:
                raise InputError(f"{run.folder}: process {pid}, not of this sweep, trains there; wait, or stop it")
            if not has_printed:
                note(f"{run.planned.name}: waiting for process {pid} of an earlier sweep to save")
                has_printed = True
            time.sleep(0.2)
