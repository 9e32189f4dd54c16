"""A task run in its folder: placed on the devices, begun or resumed, checked for room, trained, its files closed."""

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
    folder: Path, task: TrainTask, mesh: Mesh, options: RunOptions, *, resume: bool, best_kept: Path
) -> TrainOutcome:
    """Train in `folder`, or go on there; answers how it ended. best_kept: the file that says that the best is kept.

    Raises InputError for what the user can mend, out of memory among it.
    """
    share = task.batch_size // mesh.size
    if share % task.settings.accumulate:
        raise InputError(
            f"--accumulate {task.settings.accumulate} does not divide the {share} rows of a batch that each device has"
        )
    checkpoints = Checkpoints(folder / "checkpoints")
    log = None
    try:
        state = place(mesh, init_state(task.model, task.tx, averaged=task.settings.ema > 0), fsdp=options.fsdp)
        best = None
        if resume and checkpoints.latest() is not None:
            state, best = _resumed(checkpoints, state, task, best_kept)
            print(f"resuming at step {int(state.step)} of {task.epochs * task.steps_per_epoch}")
        log = MetricsLog(folder, step=int(state.step), sinks=open_sinks(folder, options, step=int(state.step)))
        profile = StepProfiler(folder / "profile", options.profile, int(state.step))
        step = _Compiled(task, mesh, options)
        tools = LoopTools(step, checkpoints, log, profile, 60 * options.save_minutes)
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


def _resumed(
    checkpoints: Checkpoints, like: TrainState, task: TrainTask, best_kept: Path
) -> tuple[TrainState, dict[str, Any] | None]:
    """The latest state that can be read, and the best record; the best model is written anew where it was lost."""
    state, progress = checkpoints.restore(like)
    best = progress["best"]
    if best is not None and not best_kept.is_file():  # killed between taking the old one away and renaming the new
        found, _ = checkpoints.restore(like, step=best["step"])
        task.keep_best(found.eval_params, best)
    return state, best


class _Compiled:
    """The step, compiled for the first batch that comes, once its memory was looked at."""

    def __init__(self, task: TrainTask, mesh: Mesh, options: RunOptions):
        self._task, self._mesh, self._options = task, mesh, options
        self._run: Callable[..., tuple[TrainState, jax.Array]] | None = None

    def __call__(self, state: TrainState, batch: Any) -> tuple[TrainState, jax.Array]:
        if self._run is None:
            self._run = self._checked(state, batch)
        return self._run(state, batch)

    def _compiled(self, state: TrainState, batch: Any, accumulate: int) -> Any:
        task = self._task
        settings = task.settings._replace(accumulate=accumulate)
        step = make_train_step(task.prepare, task.loss_of, task.tx, settings, mesh=self._mesh, like=state)
        return step.lower(state, batch).compile()  # type: ignore[attr-defined]  # it is jitted

    def _checked(self, state: TrainState, batch: Any) -> Any:
        compiled = self._compiled(state, batch, self._task.settings.accumulate)
        need, available = memory_use(compiled), available_bytes()
        print(format_memory(need, available))
        if self._options.memory_check and available is not None and need.total > available:
            raise InputError(self._what_fits(state, batch, need.total, available))
        return compiled

    def _what_fits(self, state: TrainState, batch: Any, needed: int, available: int) -> str:
        rows = self._task.batch_size // self._mesh.size
        parts = 2 * self._task.settings.accumulate
        text = f"a step needs {needed / 1e9:,.2f} GB a device and {available / 1e9:,.2f} GB are there: "
        while rows % parts == 0:
            need = memory_use(self._compiled(state, batch, parts)).total
            if need <= available:
                size = self._task.batch_size // parts
                return text + f"--accumulate {parts} fits ({need / 1e9:,.2f} GB), and so does about --batch-size {size}"
            parts *= 2
        return text + "no accumulation fits; give --remat full, smaller images or models, or more devices and --fsdp"
