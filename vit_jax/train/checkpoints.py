"""A run's checkpoints, by orbax: the last ones and the best one, each written whole or not at all, beside the work."""

import io
import logging
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, suppress
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from vit_jax.checkpoint import check_names
from vit_jax.errors import InputError


def _flat(tree: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


@contextmanager
def _quiet_threads() -> Iterator[None]:
    """orbax's threads print tracebacks of their own when a write fails; the caller gets the exception itself."""
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

    Writing goes on beside the training: what fails there is raised by the next call.
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
        # Named here, since a new process would not know them before it restores; restore() looks first.
        handlers = {"state": ocp.StandardCheckpointHandler(), "progress": ocp.JsonCheckpointHandler()}
        self._manager = ocp.CheckpointManager(self._folder, options=options, item_handlers=handlers)

    def save(self, state: Any, progress: dict[str, Any], *, step: int, score: float | None) -> None:
        """Begin to write a checkpoint; score is None where the epoch is not over. Replaces one of the same step."""
        with self._told():
            self._manager.wait_until_finished()
            if step in self._manager.all_steps():
                self._manager.delete(step)
            self._check_room(state)
            # The next step takes over the state's memory, and on a CPU what is written would be that very memory.
            kept = jax.tree.map(jnp.copy, state) if jax.default_backend() == "cpu" else state
            arguments = ocp.args.Composite(
                state=ocp.args.StandardSave(_flat(kept)), progress=ocp.args.JsonSave(progress)
            )
            metrics = None if score is None else {"score": score}
            self._manager.save(step, args=arguments, metrics=metrics, force=True)

    def wait(self) -> None:
        """Return when all is written."""
        with self._told():
            self._manager.wait_until_finished()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            with _quiet_threads():
                yield
        except BaseException:
            for half_written in self._folder.glob("*.orbax-checkpoint-tmp"):
                shutil.rmtree(half_written, ignore_errors=True)
            raise

    def _check_room(self, state: Any) -> None:
        needed = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        free = shutil.disk_usage(self._folder).free
        if free < needed:
            raise InputError(
                f"{self._folder}: no space left for a checkpoint: it needs {needed / 1e6:,.0f} MB and "
                f"{free / 1e6:,.0f} MB are free; free some space and --resume"
            )

    def latest(self) -> int | None:
        """The step of the latest checkpoint, or None."""
        return self._manager.latest_step()

    def restore(self, like: Any, *, step: int | None = None) -> tuple[Any, dict[str, Any]]:
        """The (state, progress) of a step, or the latest that is whole; `like` is a state of the same shapes, placed.

        A torn checkpoint is passed over with a word. Raises InputError when there is none, only torn ones, or one of
        another shape.
        """
        steps = sorted(self._manager.all_steps(), reverse=True) if step is None else [step]
        if not steps:
            raise InputError(f"{self._manager.directory}: no checkpoint to resume from; start the run anew")
        torn = ""
        for number in steps:
            try:
                return self._read(like, number)
            except InputError as error:
                raise InputError(f"{self._folder}: can't resume from checkpoint {number}: {error}") from error
            except Exception as error:  # whatever orbax and tensorstore find in a damaged folder
                torn = f"{self._folder}: checkpoint {number} can't be read ({str(error).splitlines()[0][:200]})"
                print(f"passed over: {torn}", file=sys.stderr)
        raise InputError(f"{torn}, and there is no older one; start the run anew")

    def _read(self, like: Any, step: int) -> tuple[Any, dict[str, Any]]:
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, _flat(like))
        arguments = ocp.args.Composite(state=ocp.args.StandardRestore(abstract), progress=ocp.args.JsonRestore())
        with _quiet_threads():
            stored = self._manager.item_metadata(step).state
            # Before anything is read: a read that fails halfway leaves orbax's other reads behind, to fail later.
            check_names({n: a.shape for n, a in abstract.items()}, {n: a.shape for n, a in stored.items()})
            restored = self._manager.restore(step, args=arguments)
        leaves = [restored.state[name] for name in _flat(like)]
        return jax.tree.unflatten(jax.tree.structure(like), leaves), restored.progress

    def close(self) -> None:
        """Wait for what is being written; a failure there was told by wait(), or is by what ended the run."""
        with suppress(Exception):
            self.wait()
        self._manager.close()
