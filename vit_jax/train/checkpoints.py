"""Checkpoints of a run, by orbax: the latest ones and the best one, written atomically and asynchronously."""

import io
import logging
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, suppress
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from vit_jax.checkpoint import check_names
from vit_jax.errors import InputError

# Arrays that older checkpoints have under another name: (pattern, replacement). Until 2026-11 every group of parameters
# with its own learning rate had an AdamW of its own, whose step counts were equal.
RENAMED_ARRAYS = (
    (re.compile(r"opt_state\.(\d+)\.inner_states\..+?\.inner_state\.0\.(.+)"), r"opt_state.\1.0.inner_state.0.\2"),
    (re.compile(r"opt_state\.(\d+)\.inner_states\..+?\.inner_state\.2\.count"), r"opt_state.\1.1.count"),
)


def current_name(stored: str) -> str:
    """Return the name of an array of a checkpoint in the state of today."""
    for pattern, replacement in RENAMED_ARRAYS:
        if (match := pattern.fullmatch(stored)) is not None:
            return match.expand(replacement)
    return stored


def _flatten(tree: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


@contextmanager
def _quiet_threads() -> Iterator[None]:
    """Silence orbax's threads, which print tracebacks when a write fails; the caller gets the exception itself."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


class Checkpoints:
    """Saves (state, progress) by step; keeps the two latest and the one of the highest score.

    Writing is asynchronous: the next call raises what failed in it.
    """

    def __init__(self, folder: Path):

        def score(metrics: dict[str, float]) -> float:
            return metrics["score"]

        best = BestN(get_metric_fn=score, n=1, keep_checkpoints_without_metrics=False)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=AnyPreservationPolicy([LatestN(2), best]),
            enable_async_checkpointing=True,
            cleanup_tmp_directories=True,  # of a process that was killed while it wrote
            best_fn=score,  # without it the metrics are not written, and a resumed run forgets its best
        )
        self._folder = folder.absolute()
        # Named here, since item_metadata, which _read calls before restoring, needs them in a new process.
        handlers = {"state": ocp.StandardCheckpointHandler(), "progress": ocp.JsonCheckpointHandler()}
        self._manager = ocp.CheckpointManager(self._folder, options=options, item_handlers=handlers)

    def save(self, state: Any, progress: dict[str, Any], *, step: int, score: float | None) -> None:
        """Start writing a checkpoint, in place of one of the same step. score: None within an epoch."""
        with self._clean_up_on_failure():
            self._manager.wait_until_finished()
            if step in self._manager.all_steps():
                self._manager.delete(step)
            self._check_free_space(state)
            # The next step reuses the memory of the state, which on a CPU is the memory that is being written.
            copy = jax.tree.map(jnp.copy, state) if jax.default_backend() == "cpu" else state
            arguments = ocp.args.Composite(
                state=ocp.args.StandardSave(_flatten(copy)), progress=ocp.args.JsonSave(progress)
            )
            metrics = None if score is None else {"score": score}
            self._manager.save(step, args=arguments, metrics=metrics, force=True)

    def wait(self) -> None:
        """Wait until everything is written."""
        with self._clean_up_on_failure():
            self._manager.wait_until_finished()

    @contextmanager
    def _clean_up_on_failure(self) -> Iterator[None]:
        try:
            with _quiet_threads():
                yield
        except BaseException:
            for half_written in self._folder.glob("*.orbax-checkpoint-tmp"):
                shutil.rmtree(half_written, ignore_errors=True)
            raise

    def _check_free_space(self, state: Any) -> None:
        needed = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        free = shutil.disk_usage(self._folder).free
        if free < needed:
            raise InputError(
                f"{self._folder}: no space left for a checkpoint: it needs {needed / 1e6:,.0f} MB and "
                f"{free / 1e6:,.0f} MB are free; free some space and --resume"
            )

    def latest(self) -> int | None:
        """Return the step of the latest checkpoint, or None."""
        return self._manager.latest_step()

    def restore(self, like: Any, *, step: int | None = None) -> tuple[Any, dict[str, Any]]:
        """Return the (state, progress) of a step, or of the latest checkpoint that can be read.

        like: a state of the same shapes, placed on its devices. A damaged checkpoint is skipped with a warning.
        Raises InputError if there is none, if all are damaged, and for other shapes.
        """
        steps = sorted(self._manager.all_steps(), reverse=True) if step is None else [step]
        if not steps:
            raise InputError(f"{self._manager.directory}: no checkpoint to resume from; start a new run")
        damage = ""
        for number in steps:
            try:
                return self._read(like, number)
            except InputError as error:
                raise InputError(f"{self._folder}: can't resume from checkpoint {number}: {error}") from error
            except Exception as error:  # orbax and tensorstore raise many kinds for a damaged folder
                damage = f"{self._folder}: checkpoint {number} can't be read ({str(error).splitlines()[0][:200]})"
                print(f"skipped: {damage}", file=sys.stderr)
        raise InputError(f"{damage}, and there is no older one; start a new run")

    def _read(self, like: Any, step: int) -> tuple[Any, dict[str, Any]]:
        expected = {name: ocp.utils.to_shape_dtype_struct(leaf) for name, leaf in _flatten(like).items()}
        with _quiet_threads():
            stored = self._manager.item_metadata(step).state
            names = {name: current_name(name) for name in stored}
            # Checked before reading: a read that fails halfway leaves reads of orbax behind that fail later.
            check_names(_shapes(expected), _shapes({names[name]: array for name, array in stored.items()}))
            requested = {name: expected[names[name]] for name in stored}
            arguments = ocp.args.Composite(state=ocp.args.StandardRestore(requested), progress=ocp.args.JsonRestore())
            restored = self._manager.restore(step, args=arguments)
        arrays = {names[name]: array for name, array in restored.state.items()}
        return jax.tree.unflatten(jax.tree.structure(like), [arrays[name] for name in expected]), restored.progress

    def close(self) -> None:
        """Wait for writes in progress and close. A failed write is not raised here: wait() raises it."""
        with suppress(Exception):
            self.wait()
        self._manager.close()


class NoCheckpoints:
    """Checkpoints of training that writes nothing."""

    def save(self, state: Any, progress: dict[str, Any], *, step: int, score: float | None) -> None:
        """Save nothing."""

    def wait(self) -> None:
        """Return at once."""

    def latest(self) -> int | None:
        """Return None: there is no checkpoint."""
        return None

    def close(self) -> None:
        """Close nothing."""


def _shapes(arrays: Mapping[str, Any]) -> dict[str, Any]:
    return {name: array.shape for name, array in arrays.items()}
