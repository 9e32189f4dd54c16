"""Run a TrainTask in its folder: place it on the devices, start or resume it, check its memory and train."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from vit_jax.errors import InputError
from vit_jax.train.checkpoints import Checkpoints
from vit_jax.train.logging import MetricsLog, open_sinks
from vit_jax.train.loop import LoopTools, TrainOutcome, TrainTask, run_epochs
from vit_jax.train.memory import available_bytes, format_memory, is_out_of_memory, memory_use, out_of_memory_error
from vit_jax.train.options import RunOptions
from vit_jax.train.profiler import StepProfiler
from vit_jax.train.sharding import place
from vit_jax.train.state import TrainState, init_state
from vit_jax.train.step import make_train_step


def run_task(
    folder: Path, task: TrainTask, mesh: Mesh, options: RunOptions, *, resume: bool, best_file: Path
) -> TrainOutcome:
    """Train in a folder, or resume there.

    best_file: a file of the best model, which tells whether the best model is saved.
    Raises InputError for what the user can correct, running out of memory included.
    """
    _check_accumulation(task, mesh)
    checkpoints = Checkpoints(folder / "checkpoints")
    log = None
    try:
        state = place(mesh, init_state(task.model, task.tx, averaged=task.settings.ema > 0), fsdp=options.fsdp)
        best = None
        if resume and checkpoints.latest() is not None:
            state, best = _restore(checkpoints, state, task, best_file)
            print(f"resuming at step {int(state.step)} of {task.epochs * task.steps_per_epoch}")
        step = int(state.step)
        log = MetricsLog(folder, step=step, sinks=open_sinks(folder, options, step=step))
        profile = StepProfiler(folder / "profile", options.profile, step)
        tools = LoopTools(_CompiledStep(task, mesh, options), checkpoints, log, profile, 60 * options.save_minutes)
        try:
            outcome = run_epochs(task, state, tools, best=best)
        finally:
            profile.close()
        checkpoints.wait()
        return outcome
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise out_of_memory_error(task.batch_size) from error
    finally:
        if log is not None:
            log.close()
        checkpoints.close()


def _check_accumulation(task: TrainTask, mesh: Mesh) -> None:
    rows, parts = task.batch_size // mesh.size, task.settings.accumulate
    if rows % parts:
        raise InputError(f"--accumulate {parts} does not divide the {rows} rows of a batch that each device has")


def _restore(
    checkpoints: Checkpoints, like: TrainState, task: TrainTask, best_file: Path
) -> tuple[TrainState, dict[str, Any] | None]:
    """Return the latest state that can be read and the best record; save the best model again if it is lost."""
    state, progress = checkpoints.restore(like)
    best = progress["best"]
    if best is not None and not best_file.is_file():  # killed between deleting the old one and renaming the new one
        best_state, _ = checkpoints.restore(like, step=best["step"])
        task.keep_best(best_state.eval_params, best)
    return state, best


class _CompiledStep:
    """The training step, compiled for the shapes of its first batch after a check of its memory."""

    def __init__(self, task: TrainTask, mesh: Mesh, options: RunOptions):
        self._task, self._mesh, self._options = task, mesh, options
        self._run: Callable[..., tuple[TrainState, jax.Array]] | None = None

    def __call__(self, state: TrainState, batch: Any) -> tuple[TrainState, jax.Array]:
        if self._run is None:
            self._run = self._compile_checked(state, batch)
        return self._run(state, batch)

    def _compile(self, state: TrainState, batch: Any, accumulate: int) -> Any:
        task = self._task
        settings = task.settings._replace(accumulate=accumulate)
        step = make_train_step(task.prepare, task.loss_of, task.tx, settings, mesh=self._mesh, like=state)
        return step.lower(state, batch).compile()  # type: ignore[attr-defined]  # it is jitted

    def _compile_checked(self, state: TrainState, batch: Any) -> Any:
        compiled = self._compile(state, batch, self._task.settings.accumulate)
        need, available = memory_use(compiled), available_bytes()
        print(format_memory(need, available))
        if self._options.memory_check and available is not None and need.total > available:
            raise InputError(self._suggest_what_fits(state, batch, need.total, available))
        return compiled

    def _suggest_what_fits(self, state: TrainState, batch: Any, needed: int, available: int) -> str:
        rows = self._task.batch_size // self._mesh.size
        parts = 2 * self._task.settings.accumulate
        text = f"a step needs {needed / 1e9:,.2f} GB per device and {available / 1e9:,.2f} GB are available: "
        while rows % parts == 0:
            need = memory_use(self._compile(state, batch, parts)).total
            if need <= available:
                size = self._task.batch_size // parts
                return text + f"--accumulate {parts} fits ({need / 1e9:,.2f} GB), and so does about --batch-size {size}"
            parts *= 2
        return text + "no accumulation fits; give --remat full, smaller images or models, or more devices and --fsdp"
