"""Run a TrainTask: place it on the devices, start or resume it, check its memory and train, in a folder or without."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from vit_jax.errors import InputError
from vit_jax.locks import lock_folder
from vit_jax.notes import note
from vit_jax.train.checkpoints import Checkpoints, NoCheckpoints
from vit_jax.train.distributed import any_process, is_first_process
from vit_jax.train.logging import MetricsLog, open_sinks
from vit_jax.train.loop import LoopTools, TrainOutcome, TrainTask, run_epochs
from vit_jax.train.memory import (
    HostUse,
    MemoryUse,
    allocates_at_dispatch,
    available_bytes,
    format_memory,
    host_use,
    is_out_of_memory,
    memory_use,
    out_of_memory_error,
)
from vit_jax.train.options import RunOptions
from vit_jax.train.profiler import StepProfiler
from vit_jax.train.result import OnEpoch
from vit_jax.train.sharding import place
from vit_jax.train.state import TrainState, init_state
from vit_jax.train.step import make_train_step


def run_task(
    folder: Path | None,
    task: TrainTask,
    mesh: Mesh,
    options: RunOptions,
    *,
    resume: bool,
    best_file: Path | None,
    create: Callable[[], None] | None = None,
    on_epoch: OnEpoch | None = None,
) -> TrainOutcome:
    """Train in a folder, or resume there; without a folder nothing is written.

    best_file: a file of the best model in the folder, which tells whether the best model is saved.
    create:    creates the folder of a new run; if that fails before its first step is done, the folder is removed.
    on_epoch:  see LoopTools.
    Raises InputError for what the user can correct, as running out of memory, and if another process trains this run.
    """
    _check_accumulation(task, mesh)
    step = _CompiledStep(task, mesh, options, is_saved=folder is not None)
    with ExitStack() as stack:
        if folder is None:
            _check_writes_nothing(options)
        else:
            missing = _missing_folders(folder)
            if create is not None:
                create()
            stack.enter_context(_lock_run(folder))
            if create is not None:
                stack.enter_context(_remove_unless(lambda: step.has_run, folder, missing))
        return _run_open(folder, task, step, options, mesh, resume=resume, best_file=best_file, on_epoch=on_epoch)


def _check_writes_nothing(options: RunOptions) -> None:
    writes = {"--profile": options.profile, "--tensorboard": options.tensorboard, "--wandb": options.wandb}
    for flag, is_given in writes.items():
        if is_given:
            raise InputError(f"{flag} writes into the run's folder; give out")


def _missing_folders(folder: Path) -> list[Path]:
    return [path for path in (folder, *folder.parents) if not path.exists()]


@contextmanager
def _remove_unless(has_started: Callable[[], bool], folder: Path, missing: list[Path]) -> Iterator[None]:
    """Remove a run's folder if the block fails before training has started, and its empty parents that were missing."""
    try:
        yield
    except BaseException:
        if is_first_process() and not has_started():
            _empty_folder(folder)
            for path in missing:  # the folder, then its parents
                with suppress(OSError):  # it is not empty
                    path.rmdir()
        raise


def _empty_folder(folder: Path) -> None:
    """Remove what is in a folder as far as possible. The folder may be a link, or a mount that cannot be removed."""
    with suppress(OSError):  # the error that ended the run is the one to report
        for path in list(folder.iterdir()):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()


@contextmanager
def _lock_run(folder: Path) -> Iterator[None]:
    """Lock a run's folder while the block runs, in the first process; all raise InputError if it is locked."""
    with ExitStack() as stack:
        error: InputError | None = None
        if is_first_process():
            try:
                stack.enter_context(lock_folder(folder, "trains this run"))
            except InputError as refusal:
                error = refusal
        if any_process(error is not None):
            raise error or InputError(f"{folder}: another process trains this run")
        yield


def _run_open(
    folder: Path | None,
    task: TrainTask,
    compiled: "_CompiledStep",
    options: RunOptions,
    mesh: Mesh,
    *,
    resume: bool,
    best_file: Path | None,
    on_epoch: OnEpoch | None,
) -> TrainOutcome:
    checkpoints = NoCheckpoints() if folder is None else Checkpoints(folder / "checkpoints")
    log = None
    try:
        state, best = (
            place(mesh, init_state(task.model, task.tx, averaged=task.settings.ema > 0), fsdp=options.fsdp),
            None,
        )
        if resume and isinstance(checkpoints, Checkpoints) and checkpoints.latest() is not None:
            state, best = _restore(checkpoints, state, task, best_file)
        step = int(state.step)
        log = MetricsLog(folder, step=step, sinks=open_sinks(folder, options, step=step))
        profile = StepProfiler(folder, options.profile, step)
        tools = LoopTools(compiled, checkpoints, log, profile, 60 * options.save_minutes, on_epoch)
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
    checkpoints: Checkpoints, like: TrainState, task: TrainTask, best_file: Path | None
) -> tuple[TrainState, dict[str, Any] | None]:
    """Return the latest state that can be read and the best record; save the best model again if it is lost."""
    state, progress = checkpoints.restore(like)
    before = progress.get("steps_per_epoch", task.steps_per_epoch)  # older runs do not store it
    if before != task.steps_per_epoch:
        raise InputError(
            f"the run had {before:,} steps an epoch, and has {task.steps_per_epoch:,} now: its data have changed; put "
            "them back, or start a new run"
        )
    best = progress["best"]
    if best is not None and best_file is not None and not best_file.is_file():
        # Killed between deleting the old one and renaming the new one.
        best_state, _ = checkpoints.restore(like, step=best["step"])
        task.keep_best(best_state.eval_params, best)
    note(f"resuming at step {int(state.step)} of {task.epochs * task.steps_per_epoch}")
    return state, best


class _CompiledStep:
    """The training step, compiled for the shapes of its first batch after a check of its memory.

    A call returns before the step is done, unless steps in flight would have large buffers of their own.
    """

    def __init__(self, task: TrainTask, mesh: Mesh, options: RunOptions, *, is_saved: bool):
        self._task, self._mesh, self._options, self._is_saved = task, mesh, options, is_saved
        self._run: Callable[..., tuple[TrainState, jax.Array]] | None = None
        self.has_run = False
        self._waits = False

    def __call__(self, state: TrainState, batch: Any) -> tuple[TrainState, jax.Array]:
        if self._run is None:
            self._run = self._compile_checked(state, batch)
        state, done = self._run(state, batch)
        if self._waits or not self.has_run:
            jax.block_until_ready(done)
            self.has_run = True
        return state, done

    def _compile(self, state: TrainState, batch: Any, accumulate: int) -> Any:
        task = self._task
        settings = task.settings._replace(accumulate=accumulate)
        step = make_train_step(task.prepare, task.loss_of, task.tx, settings, mesh=self._mesh, like=state)
        return step.lower(state, batch).compile()  # type: ignore[attr-defined]  # it is jitted

    def _compile_checked(self, state: TrainState, batch: Any) -> Any:
        compiled = self._compile(state, batch, self._task.settings.accumulate)
        need, available = memory_use(compiled), available_bytes()
        self._waits = allocates_at_dispatch(need)
        host = host_use(need, state, is_saved=self._is_saved, epochs=self._task.epochs)
        note(format_memory(need, host, available))
        if self._options.memory_check and available is not None and host.total(need) > available:
            raise InputError(self._suggest_what_fits(state, batch, need, host, available))
        return compiled

    def _suggest_what_fits(self, state: TrainState, batch: Any, need: MemoryUse, host: HostUse, available: int) -> str:
        rows = self._task.batch_size // self._mesh.size
        parts = 2 * self._task.settings.accumulate
        text = (
            f"training needs {host.total(need) / 1e9:,.2f} GB per device and {available / 1e9:,.2f} GB are available: "
        )
        while rows % parts == 0:
            total = host.total(memory_use(self._compile(state, batch, parts)))
            if total <= available:
                size = self._task.batch_size // parts
                return (
                    text + f"--accumulate {parts} fits ({total / 1e9:,.2f} GB), and so does about --batch-size {size}"
                )
            parts *= 2
        return text + "no accumulation fits; give --remat full, smaller images or models, or more devices and --fsdp"
