"""A run's checkpoints, by orbax: the last one and the best one, each written whole or not at all."""

import io
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from vit_jax import InputError
from vit_jax.checkpoint import check_names


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
    """Saves (state, progress) by step; keeps the latest and the one of the highest score."""

    def __init__(self, folder: Path):

        def score(metrics: dict[str, float]) -> float:
            return metrics["score"]

        best = BestN(get_metric_fn=score, n=1, keep_checkpoints_without_metrics=False)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=AnyPreservationPolicy([LatestN(1), best]),
            enable_async_checkpointing=False,
            cleanup_tmp_directories=True,  # of a process that was killed while it wrote
            best_fn=score,  # without it the metrics are not written, and a resumed run forgets its best
        )
        self._folder = folder.absolute()
        # Named here, since a new process would not know them before it restores; restore() looks first.
        handlers = {"state": ocp.StandardCheckpointHandler(), "progress": ocp.JsonCheckpointHandler()}
        self._manager = ocp.CheckpointManager(self._folder, options=options, item_handlers=handlers)

    def save(self, state: Any, progress: dict[str, Any], *, step: int, score: float | None) -> None:
        """Write a checkpoint; score is None where the epoch is not over. Replaces one of the same step."""
        if step in self._manager.all_steps():
            self._manager.delete(step)
        arguments = ocp.args.Composite(state=ocp.args.StandardSave(_flat(state)), progress=ocp.args.JsonSave(progress))
        metrics = None if score is None else {"score": score}
        self._check_room(state)
        try:
            with _quiet_threads():
                self._manager.save(step, args=arguments, metrics=metrics, force=True)
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

    def restore(self, like: Any) -> tuple[Any, dict[str, Any]]:
        """The latest (state, progress); `like` is a state of the same shapes, on the devices to restore to.

        Raises InputError when there is no checkpoint, or only ones of another shape.
        """
        step = self.latest()
        if step is None:
            raise InputError(f"{self._manager.directory}: no checkpoint to resume from; start the run anew")
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, _flat(like))
        arguments = ocp.args.Composite(state=ocp.args.StandardRestore(abstract), progress=ocp.args.JsonRestore())
        try:
            stored = self._manager.item_metadata(step).state
            # Before anything is read: a read that fails halfway leaves orbax's other reads behind, to fail later.
            check_names({n: a.shape for n, a in abstract.items()}, {n: a.shape for n, a in stored.items()})
            restored = self._manager.restore(step, args=arguments)
        except (InputError, ValueError, KeyError, FileNotFoundError) as error:
            first = str(error).splitlines()[0]
            raise InputError(f"{self._manager.directory}: can't resume from checkpoint {step}: {first}") from error
        leaves = [restored.state[name] for name in _flat(like)]
        return jax.tree.unflatten(jax.tree.structure(like), leaves), restored.progress

    def close(self) -> None:
        """Wait for what is being written."""
        self._manager.close()
