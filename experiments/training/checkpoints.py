"""A run's checkpoints, by orbax: the last one and the best one, each written whole or not at all."""

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from vit_jax import InputError


def _flat(tree: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


class Checkpoints:
    """Saves (state, progress) by step; keeps the latest and the best by validation accuracy."""

    def __init__(self, folder: Path):

        def accuracy(metrics: dict[str, float]) -> float:
            return metrics["accuracy"]

        best = BestN(get_metric_fn=accuracy, n=1, keep_checkpoints_without_metrics=False)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=AnyPreservationPolicy([LatestN(1), best]),
            enable_async_checkpointing=False,
            best_fn=accuracy,  # without it the metrics are not written, and a resumed run forgets its best
        )
        self._manager = ocp.CheckpointManager(folder.absolute(), options=options)

    def save(self, state: Any, progress: dict[str, Any], *, step: int, accuracy: float | None) -> None:
        """Write a checkpoint; accuracy is None where the epoch is not over. Replaces one of the same step."""
        if step in self._manager.all_steps():
            self._manager.delete(step)
        arguments = ocp.args.Composite(state=ocp.args.StandardSave(_flat(state)), progress=ocp.args.JsonSave(progress))
        metrics = None if accuracy is None else {"accuracy": accuracy}
        self._manager.save(step, args=arguments, metrics=metrics, force=True)

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
            restored = self._manager.restore(step, args=arguments)
        except (ValueError, KeyError, FileNotFoundError) as error:
            first = str(error).splitlines()[0]
            raise InputError(f"{self._manager.directory}: can't resume from checkpoint {step}: {first}") from error
        leaves = [restored.state[name] for name in _flat(like)]
        return jax.tree.unflatten(jax.tree.structure(like), leaves), restored.progress

    def close(self) -> None:
        """Wait for what is being written."""
        self._manager.close()
