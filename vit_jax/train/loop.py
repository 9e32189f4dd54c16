"""The training loop: epochs of steps, a validation after each, progress, checkpoints, and a clean stop.

The task (which images, which loss) comes as functions, so that every task shares it.
"""

import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from vit_jax.errors import InputError
from vit_jax.train.checkpoints import Checkpoints
from vit_jax.train.distributed import any_process
from vit_jax.train.logging import MetricsLog
from vit_jax.train.profiler import StepProfiler
from vit_jax.train.signals import Interrupt
from vit_jax.train.state import Totals, TrainState
from vit_jax.train.step import LossOf, Prepare, StepSettings

LOG_SECONDS = 10.0  # how often a line of progress is printed
TERMINAL_SECONDS = 0.5
AGREE_STEPS = 10  # how often several processes ask one another whether to stop or to save
AHEAD = 2  # steps that may be dispatched and not done: the device never waits, and progress and signals stay true


class TrainTask(NamedTuple):
    """What is trained.

    model, tx:   where training starts, and its optimiser.
    prepare, loss_of, settings: see step.make_train_step.
    batches(epoch, start): the epoch's batches from that one on, on the devices.
    batch_size:  rows of a batch, over all devices.
    validate(model): {"val_loss": ..., "val_accuracy": ..., ...} over every validation image.
    score(record): of what validate answered; the epoch of the highest is the best.
    keep_best(model, record): called whenever an epoch is the best so far.
    patience:    training ends after so many epochs in a row without a better one; 0 goes to the last.
    """

    model: Any
    tx: optax.GradientTransformation
    prepare: Prepare
    loss_of: LossOf
    settings: StepSettings
    batches: Callable[[int, int], Iterator[Any]]
    batch_size: int
    steps_per_epoch: int
    epochs: int
    validate: Callable[[Any], dict[str, float]]
    score: Callable[[dict[str, Any]], float]
    keep_best: Callable[[Any, dict[str, Any]], None]
    patience: int = 0


class LoopTools(NamedTuple):
    """What the loop works with.

    step(state, batch): the next state, and an array that is ready when the step is done.
    save_seconds: between checkpoints within an epoch; 0 for none.
    """

    step: Callable[[TrainState, Any], tuple[TrainState, jax.Array]]
    checkpoints: Checkpoints
    log: MetricsLog
    profile: StepProfiler
    save_seconds: float = 0.0


class TrainOutcome(NamedTuple):
    """How a run ended: its state, the best record of an epoch, and the signal that stopped it, if one did."""

    state: TrainState
    best: dict[str, Any] | None
    signal: int | None


class _Progress:
    """Lines of progress with rate and time left, over the steps of this process."""

    def __init__(self, task: TrainTask, first_step: int):
        self.task, self.first = task, first_step
        self.began = self.shown = time.monotonic()
        self.images_before = 0.0
        self.terminal = sys.stdout.isatty()

    def compiled(self) -> None:
        """The first step is over, and with it compilation, which says nothing of the rate to come."""
        self.began = self.shown = time.monotonic()

    def resume(self, images: float) -> None:
        """An epoch goes on with that many of its images done."""
        self.images_before, self.shown = images, time.monotonic()

    def due(self) -> bool:
        return time.monotonic() - self.shown >= (TERMINAL_SECONDS if self.terminal else LOG_SECONDS)

    def show(self, step: int, totals: Totals) -> dict[str, float]:
        loss, correct, count = (float(value) for value in jax.device_get(totals))
        now = time.monotonic()
        rate = (count - self.images_before) / max(now - self.shown, 1e-9)
        self.images_before, self.shown = count, now
        left = (
            (self.task.epochs * self.task.steps_per_epoch - step) * (now - self.began) / max(1, step - self.first - 1)
        )
        epoch, within = divmod(step - 1, self.task.steps_per_epoch)
        line = (
            f"epoch {epoch + 1}/{self.task.epochs} step {within + 1}/{self.task.steps_per_epoch} "
            f"loss {loss / count:.4f} accuracy {correct / count:.4f} {rate:.1f} images/s, {_duration(left)} left"
        )
        print(f"\r\033[K{line}" if self.terminal else line, end="" if self.terminal else "\n", flush=True)
        return {"loss": loss / count, "accuracy": correct / count, "images_per_second": rate}

    def line(self, text: str) -> None:
        print(f"\r\033[K{text}" if self.terminal else text, flush=True)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def run_epochs(task: TrainTask, state: TrainState, tools: LoopTools, *, best: dict[str, Any] | None) -> TrainOutcome:
    """Train to the last epoch, or until a signal: then save and answer so.

    Raises InputError when the loss stops being a finite number: the last checkpoint is kept.
    """
    first = int(state.step)
    progress = _Progress(task, first)
    with Interrupt() as interrupt:
        for epoch in range(first // task.steps_per_epoch, task.epochs):
            if _patience_over(task, best, epoch):
                progress.line(f"no better epoch for {task.patience}: stopped early")
                break
            began = time.monotonic()
            state, step, stopped = _train_epoch(task, state, epoch, progress, interrupt, tools, best)
            _check_failed(state, tools)
            if step % task.steps_per_epoch:  # stopped on the way
                tools.checkpoints.save(state, {"best": best}, step=step, score=None)
                return TrainOutcome(state, best, stopped)
            record = {"step": step, "epoch": epoch + 1} | _epoch_record(task, state)
            record["seconds"] = time.monotonic() - began
            tools.log.write(record)
            progress.line(_epoch_line(task, record))
            state = state._replace(totals=jax.tree.map(_zeroed, state.totals))
            if best is None or task.score(record) > task.score(best):
                best = record
                task.keep_best(state.eval_params, record)
            tools.checkpoints.save(state, {"best": best}, step=step, score=task.score(record))
            stopped = _signal_of_any(interrupt)
            if stopped is not None and epoch + 1 < task.epochs:
                return TrainOutcome(state, best, stopped)
    return TrainOutcome(state, best, None)


def _patience_over(task: TrainTask, best: dict[str, Any] | None, epoch: int) -> bool:
    return bool(task.patience) and best is not None and epoch - best["epoch"] >= task.patience


def _zeroed(x: jax.Array) -> jax.Array:
    return jax.device_put(np.zeros(x.shape, x.dtype), x.sharding)


def _signal_of_any(interrupt: Interrupt) -> int | None:
    """The signal that any process has got; SIGTERM's number stands for another one's."""
    return (interrupt.signal or signal.SIGTERM) if any_process(interrupt.signal is not None) else None


def _train_epoch(
    task: TrainTask,
    state: TrainState,
    epoch: int,
    progress: _Progress,
    interrupt: Interrupt,
    tools: LoopTools,
    best: dict[str, Any] | None,
) -> tuple[TrainState, int, int | None]:
    """The rest of one epoch, or its steps up to a signal; answers the state, its step and the signal."""
    step = int(state.step)
    progress.resume(float(state.totals.images))
    saved = time.monotonic()
    ahead: deque[jax.Array] = deque()
    alone = jax.process_count() == 1
    for batch in task.batches(epoch, step % task.steps_per_epoch):
        tools.profile.before(step)
        state, done = tools.step(state, batch)
        step += 1
        ahead.append(done)
        if len(ahead) > AHEAD:
            jax.block_until_ready(ahead.popleft())
        if step == progress.first + 1:
            jax.block_until_ready(done)
            progress.compiled()
        elif progress.due():
            tools.log.write({"step": step, "epoch": epoch + 1} | progress.show(step, state.totals))
            _check_failed(state, tools)
        if alone or step % AGREE_STEPS == 0:
            if (stopped := _signal_of_any(interrupt)) is not None:
                return state, step, stopped
            old = tools.save_seconds > 0 and time.monotonic() - saved >= tools.save_seconds
            if any_process(old) and step % task.steps_per_epoch:
                _check_failed(state, tools)
                tools.checkpoints.save(state, {"best": best}, step=step, score=None)
                saved = time.monotonic()
    return state, step, None


def _check_failed(state: TrainState, tools: LoopTools) -> None:
    failed = int(state.failed)
    if failed:
        kept = tools.checkpoints.latest()
        last = "no step was saved before" if kept is None else f"the last good state, of step {kept}, is kept"
        raise InputError(
            f"the loss of step {failed} is no finite number; {last}: lower --learning-rate (or --clip-norm 1) and "
            "start anew"
        )


def _epoch_record(task: TrainTask, state: TrainState) -> dict[str, Any]:
    loss, correct, count = (float(value) for value in jax.device_get(state.totals))
    return {"train_loss": loss / count, "train_accuracy": correct / count} | task.validate(state.eval_params)


def _epoch_line(task: TrainTask, record: dict[str, Any]) -> str:
    measured = (f"{name.removeprefix('val_')} {record[name]:.4f}" for name in record if name.startswith("val_"))
    return (
        f"epoch {record['epoch']}/{task.epochs}: train loss {record['train_loss']:.4f} accuracy "
        f"{record['train_accuracy']:.4f}, validation {' '.join(measured)}, {record['seconds']:.1f} s"
    )
