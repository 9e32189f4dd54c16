"""The metrics log: metrics.jsonl, and whatever else is asked to listen."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from vit_jax.errors import InputError
from vit_jax.files import atomic_write
from vit_jax.train.distributed import is_first_process
from vit_jax.train.options import RunOptions


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl, less a last one that broke off. Empty when there is no file."""
    lines: list[dict[str, Any]] = []
    if path.is_file():
        for line in path.read_text().splitlines():
            try:
                lines.append(json.loads(line))
            except ValueError:
                break
    return lines


@runtime_checkable
class Sink(Protocol):
    """Where records go."""

    def write(self, record: dict[str, Any]) -> None:
        """Take a record, which has a step."""
        ...

    def close(self) -> None:
        """Write what is left."""
        ...


class TensorBoard:
    """Event files of every number. Raises InputError when tensorboardX is not installed."""

    def __init__(self, folder: Path, *, step: int):
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            raise InputError("--tensorboard needs tensorboardX; pip install 'vit-jax[tensorboard]'") from error
        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else None)

    def write(self, record: dict[str, Any]) -> None:
        """A scalar for each number that is no integer."""
        for name, value in record.items():
            if isinstance(value, float):
                self._writer.add_scalar(name, value, record["step"])

    def close(self) -> None:
        """Close the files."""
        self._writer.close()


class WeightsAndBiases:
    """A run of a Weights & Biases project, gone on with where the run is. Raises InputError without wandb."""

    def __init__(self, folder: Path, project: str):
        try:
            import wandb
        except ImportError as error:
            raise InputError("--wandb needs wandb; pip install wandb") from error
        config = json.loads((folder / "config.json").read_text())
        name = folder.absolute().name
        kept = folder / "wandb_id"
        identity = kept.read_text() if kept.is_file() else wandb.util.generate_id()
        kept.write_text(identity)
        options: dict[str, Any] = dict(project=project, name=name, id=identity, resume="allow", dir=str(folder))
        self._run = wandb.init(config=config, **options)

    def write(self, record: dict[str, Any]) -> None:
        """The record at its step."""
        self._run.log({name: value for name, value in record.items() if name != "step"}, step=record["step"])

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


def open_sinks(folder: Path, options: RunOptions, *, step: int) -> list[Sink]:
    """What is asked for beside metrics.jsonl. Raises InputError for what is not installed."""
    found: list[Sink] = []
    if is_first_process() and options.tensorboard:
        found.append(TensorBoard(folder, step=step))
    if is_first_process() and options.wandb:
        found.append(WeightsAndBiases(folder, options.wandb))
    return found


class MetricsLog:
    """Appends records to metrics.jsonl, and to the sinks. What came after `step` is dropped at the start.

    Of several processes the first one writes.
    """

    def __init__(self, folder: Path, *, step: int, sinks: Sequence[Sink] = ()):
        self._sinks, self._file = sinks, None
        if not is_first_process():
            return
        path = folder / "metrics.jsonl"
        kept = [record for record in read_metrics(path) if record["step"] <= step]
        with atomic_write(path) as beside:
            beside.write_text("".join(json.dumps(record) + "\n" for record in kept))
        self._file = open(path, "a")  # noqa: SIM115  closed in close()

    def write(self, record: dict[str, Any]) -> None:
        """Append one record, which has a step."""
        if self._file is not None:
            self._file.write(json.dumps(record) + "\n")
            self._file.flush()
        for sink in self._sinks:
            sink.write(record)

    def close(self) -> None:
        """Close the files."""
        if self._file is not None:
            self._file.close()
        for sink in self._sinks:
            sink.close()
