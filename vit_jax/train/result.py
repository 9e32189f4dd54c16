"""What training returns, and how a task becomes that: the part that classifiers and captioners share."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax.checkpoint import CONFIG
from vit_jax.interruption import Interruption
from vit_jax.train.distributed import is_first_process, sync_processes
from vit_jax.train.options import RunOptions
from vit_jax.train.run_folder import BEST

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from vit_jax.train.loop import TrainTask

OnEpoch = Callable[[dict[str, Any]], bool | None]


class FitResult(NamedTuple):
    """A trained model.

    model:   that of the best epoch.
    history: the record of every epoch: epoch, train_loss, val_loss, val_accuracy and so on.
    folder:  of the run, None if nothing was written.
    """

    model: Any
    history: list[dict[str, Any]]
    folder: Path | None


class TrainingStopped(Interruption):
    """A signal stopped training, after its state was saved if it has a folder. step: the number of steps done."""

    def __init__(self, number: int, step: int) -> None:
        super().__init__(number)
        self.step = step


class BestModel:
    """The best model of a run so far: in its folder or, without one, in host memory.

    write: (model, folder, record of its epoch) -> None.
    read:  folder -> model.
    """

    def __init__(
        self, run: Path | None, write: Callable[[Any, Path, dict[str, Any]], None], read: Callable[[Path], Any]
    ) -> None:
        self.folder = None if run is None else run / BEST
        self._write, self._read = write, read
        self._held: Any = None

    @property
    def file(self) -> Path | None:
        """A file that exists if the best model is saved."""
        return None if self.folder is None else self.folder / CONFIG

    def keep(self, model: Any, record: dict[str, Any]) -> None:
        """Keep a model in place of the one before. To be called in every process."""
        if self.folder is None:
            self._held = jax.tree.map(np.array, model)  # a copy: the next step reuses the memory of the model
        elif is_first_process():
            self._write(model, self.folder, record)

    def get(self) -> Any:
        """Return the model."""
        if self.folder is None:
            return jax.tree.map(jnp.asarray, self._held)
        sync_processes("best model")
        return self._read(self.folder)


def copy_arrays(model: Any) -> Any:
    """Return a model in memory of its own, which training can use for its state."""
    return jax.tree.map(jnp.copy, model)


def run_fit(
    task: "TrainTask",
    mesh: "Mesh",
    options: RunOptions,
    best: BestModel,
    *,
    run: Path | None,
    create: Callable[[], None] | None,
    on_epoch: OnEpoch | None,
) -> FitResult:
    """Train, in a run's folder or without.

    create: creates the folder of a new run; None resumes the one that exists. See run_task for errors.
    """
    from vit_jax.train.run import run_task  # imports orbax, which takes a second

    outcome = run_task(
        run, task, mesh, options, resume=run is not None and create is None, best_file=best.file, create=create,
        on_epoch=on_epoch,
    )  # fmt: skip
    if outcome.signal is not None:
        raise TrainingStopped(outcome.signal, int(outcome.state.step))
    return FitResult(best.get(), outcome.epochs, run)
