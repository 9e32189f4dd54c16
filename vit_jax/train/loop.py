"""The training loop: epochs of steps, a validation after each, checkpoints, and a clean stop at a signal.

What is trained, on which data and with which loss comes as a TrainTask, so that all tasks share the loop. It reads from
top to bottom: `run` is the loop over epochs, `_train_epoch` that over steps, `_end_epoch` what follows an epoch.
"""

import signal
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from vit_jax.errors import InputError
from vit_jax.train.checkpoints import Checkpoints, NoCheckpoints
from vit_jax.train.display import TrainDisplay
from vit_jax.train.distributed import any_process
from vit_jax.train.logging import MetricsLog
from vit_jax.train.profiler import StepProfiler
from vit_jax.train.result import OnEpoch
from vit_jax.train.signals import Interrupt
from vit_jax.train.state import TrainState
from vit_jax.train.step import LossOf, Prepare, StepSettings

AGREE_STEPS = 10  # interval at which several processes agree on stopping and saving
MAX_IN_FLIGHT = 2  # steps dispatched but not done: the device never waits, and the display stays up to date


class TrainTask(NamedTuple):
    """What is trained.

    model, tx:   the initial parameters and the optimizer.
    prepare, loss_of, settings: see step.make_train_step.
    batches:     (epoch, start) -> the batches of the epoch from batch `start` on, on the devices.
    batch_size:  rows of a batch, over all devices.
    validate:    parameters -> {"val_loss": ..., "val_accuracy": ..., ...} over the whole validation split.
    score:       record of an epoch -> number; the epoch of the highest is the best.
    keep_best:   (parameters, record) -> None, called in every process after every epoch that is the best so far.
    patience:    epochs without improvement after which training stops; 0 for never.
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

    step:         (state, batch) -> (next state, an array that is ready when the step is done).
    save_seconds: interval of checkpoints within an epoch; 0 for none.
    on_epoch:     called with the record of every epoch, after it is saved; True ends the training.
    """

    step: Callable[[TrainState, Any], tuple[TrainState, jax.Array]]
    checkpoints: Checkpoints | NoCheckpoints
    log: MetricsLog
    profile: StepProfiler
    save_seconds: float = 0.0
    on_epoch: OnEpoch | None = None


class TrainOutcome(NamedTuple):
    """How a run ended.

    best:   the record of the best epoch.
    signal: the signal that stopped the run, or None.
    epochs: the records of all epochs, those before the run was resumed included.
    """

    state: TrainState
    best: dict[str, Any] | None
    signal: int | None
    epochs: list[dict[str, Any]]


def run_epochs(task: TrainTask, state: TrainState, tools: LoopTools, *, best: dict[str, Any] | None) -> TrainOutcome:
    """Train from the step of `state` to the last epoch, or until a signal; then save.

    best: the record of the best epoch before a run was resumed. Raises InputError for a non-finite loss.
    """
    return _Loop(task, tools, first_step=int(state.step), best=best).run(state)


class _Loop:
    """The loop of one run."""

    def __init__(self, task: TrainTask, tools: LoopTools, *, first_step: int, best: dict[str, Any] | None):
        self.task, self.tools, self.best = task, tools, best
        self.step = self.first_step = first_step
        self.is_single_process = jax.process_count() == 1
        self.interrupt = Interrupt()
        self.display = TrainDisplay(first_step, task.epochs * task.steps_per_epoch, task.epochs)

    def run(self, state: TrainState) -> TrainOutcome:
        """Run all epochs that are left."""
        task = self.task
        with self.interrupt, self.display:
            for epoch in range(self.first_step // task.steps_per_epoch, task.epochs):
                if self._is_patience_over(epoch):
                    self.display.write_line(f"no improvement in {task.patience} epochs: stopped early")
                    break
                start = time.monotonic()
                state, stop = self._train_epoch(state, epoch)
                self._check_finite(state)
                if self.step % task.steps_per_epoch:  # stopped within the epoch
                    self._save(state, score=None)
                    return self._outcome(state, stop)
                state, is_ended = self._end_epoch(state, epoch, start)
                stop = self._agreed_signal()
                if stop is not None and epoch + 1 < task.epochs:
                    return self._outcome(state, stop)
                if is_ended:
                    break
        return self._outcome(state, None)

    def _train_epoch(self, state: TrainState, epoch: int) -> tuple[TrainState, int | None]:
        """Run the steps that are left of an epoch. Return the state and the signal that stopped it, if any."""
        self.display.start_epoch(epoch, float(state.totals.images))
        saved = time.monotonic()
        in_flight: deque[jax.Array] = deque()
        for batch in self.task.batches(epoch, self.step % self.task.steps_per_epoch):
            self.tools.profile.before(self.step)
            state, done = self.tools.step(state, batch)
            self.step += 1
            in_flight.append(done)
            if len(in_flight) > MAX_IN_FLIGHT:
                jax.block_until_ready(in_flight.popleft())
            if self.step == self.first_step + 1:
                jax.block_until_ready(done)
                self.display.exclude_compilation(self.step)
            elif self.display.is_due():
                self.tools.log.write(
                    {"step": self.step, "epoch": epoch + 1} | self.display.show(self.step, state.totals)
                )
                self._check_finite(state)
            if self.is_single_process or self.step % AGREE_STEPS == 0:
                if (stop := self._agreed_signal()) is not None:
                    return state, stop
                is_due = 0 < self.tools.save_seconds <= time.monotonic() - saved
                if any_process(is_due) and self.step % self.task.steps_per_epoch:
                    self._check_finite(state)
                    self._save(state, score=None)
                    saved = time.monotonic()
        return state, None

    def _end_epoch(self, state: TrainState, epoch: int, start: float) -> tuple[TrainState, bool]:
        """Validate, log and save. Return the state with its totals set to zero, and whether on_epoch ends training."""
        task = self.task
        loss, correct, count = (float(value) for value in jax.device_get(state.totals))
        record: dict[str, Any] = {"step": self.step, "epoch": epoch + 1}
        record |= {"train_loss": loss / count, "train_accuracy": correct / count} | task.validate(state.eval_params)
        record["seconds"] = time.monotonic() - start
        self.tools.log.write(record)
        self.display.write_line(_format_epoch(record, task.epochs))
        state = state._replace(totals=jax.tree.map(_zeros_like, state.totals))
        if self.best is None or task.score(record) > task.score(self.best):
            self.best = record
            task.keep_best(state.eval_params, record)
        self._save(state, score=task.score(record))
        on_epoch = self.tools.on_epoch
        return state, any_process(on_epoch is not None and _is_true(on_epoch(dict(record))))

    def _outcome(self, state: TrainState, stop: int | None) -> TrainOutcome:
        return TrainOutcome(state, self.best, stop, list(self.tools.log.epochs))

    def _save(self, state: TrainState, *, score: float | None) -> None:
        progress = {"best": self.best, "steps_per_epoch": self.task.steps_per_epoch}
        self.tools.checkpoints.save(state, progress, step=self.step, score=score)

    def _is_patience_over(self, epoch: int) -> bool:
        patience = self.task.patience
        return patience > 0 and self.best is not None and epoch - self.best["epoch"] >= patience

    def _agreed_signal(self) -> int | None:
        """Return the signal of this process, SIGTERM if only another process has one, or None."""
        is_stopped = any_process(self.interrupt.signal is not None)
        return (self.interrupt.signal or signal.SIGTERM) if is_stopped else None

    def _check_finite(self, state: TrainState) -> None:
        failed = int(state.failed)
        if failed:
            latest = self.tools.checkpoints.latest()
            last = "no checkpoint before it" if latest is None else f"the checkpoint of step {latest} is kept"
            raise InputError(
                f"non-finite loss at step {failed}; {last}: lower --learning-rate (or give --clip-norm 1) and start "
                "a new run"
            )


def _is_true(value: Any) -> bool:
    """Return whether a value is True, of Python or of numpy."""
    return isinstance(value, bool | np.bool_) and bool(value)


def _zeros_like(x: jax.Array) -> jax.Array:
    return jax.device_put(np.zeros(x.shape, x.dtype), x.sharding)


def _format_epoch(record: dict[str, Any], epochs: int) -> str:
    measures = (f"{name.removeprefix('val_')} {record[name]:.4f}" for name in record if name.startswith("val_"))
    return (
        f"epoch {record['epoch']}/{epochs}: train loss {record['train_loss']:.4f} accuracy "
        f"{record['train_accuracy']:.4f}, validation {' '.join(measures)}, {record['seconds']:.1f} s"
    )
