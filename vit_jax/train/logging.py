"""The metrics log: metrics.jsonl, and optionally TensorBoard and Weights & Biases."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from vit_jax.errors import InputError
from vit_jax.files import atomic_write
from vit_jax.train.distributed import is_first_process
from vit_jax.train.options import RunOptions

METRICS = "metrics.jsonl"
EPOCH_FIELD = "val_loss"  # in the records of epochs alone


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the records of a metrics.jsonl, without an incomplete last line. Empty if there is no file."""
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
    """A destination of records."""

    def write(self, record: dict[str, Any]) -> None:
        """Log a record, which has a step."""
        ...

    def close(self) -> None:
        """Write everything that is pending."""
        ...


class TensorBoard:
    """Writes TensorBoard event files. Raises InputError if tensorboardX is not installed."""

    def __init__(self, folder: Path, *, step: int):
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            raise InputError("--tensorboard needs tensorboardX; pip install 'vit-jax[tensorboard]'") from error
        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else None)

    def write(self, record: dict[str, Any]) -> None:
        """Log a scalar for each floating-point number."""
        for name, value in record.items():
            if isinstance(value, float):
                self._writer.add_scalar(name, value, record["step"])

    def close(self) -> None:
        """Close the files."""
        self._writer.close()


class WeightsAndBiases:
    """Logs to a run of a Weights & Biases project, the same one after resuming. Raises InputError without wandb."""

    def __init__(self, folder: Path, project: str):
        try:
            import wandb
        except ImportError as error:
            raise InputError("--wandb needs wandb; pip install wandb") from error
        config = json.loads((folder / "config.json").read_text())
        name = folder.absolute().name
        id_file = folder / "wandb_id"
        identity = id_file.read_text() if id_file.is_file() else wandb.util.generate_id()
        id_file.write_text(identity)
        options: dict[str, Any] = dict(project=project, name=name, id=identity, resume="allow", dir=str(folder))
        self._run = wandb.init(config=config, **options)

    def write(self, record: dict[str, Any]) -> None:
        """Log the record at its step."""
        self._run.log({name: value for name, value in record.items() if name != "step"}, step=record["step"])

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


def open_sinks(folder: Path | None, options: RunOptions, *, step: int) -> list[Sink]:
    """Return the sinks that the options name. Raises InputError for a package that is not installed."""
    if folder is None:
        return []
    sinks: list[Sink] = []
    if is_first_process() and options.tensorboard:
        sinks.append(TensorBoard(folder, step=step))
    if is_first_process() and options.wandb:
        sinks.append(WeightsAndBiases(folder, options.wandb))
    return sinks


class MetricsLog:
    """Appends records to metrics.jsonl and to the sinks. Records of steps after `step` are dropped at the start.

    folder: None keeps the records of the epochs in memory only. Only the first process writes.
    epochs: the records of the epochs, those of metrics.jsonl first.
    """

    def __init__(self, folder: Path | None, *, step: int, sinks: Sequence[Sink] = ()):
        self._sinks, self._file = sinks, None
        self.epochs: list[dict[str, Any]] = []
        if folder is None:
            return
        path = folder / METRICS
        records = [record for record in read_metrics(path) if record["step"] <= step]
        self.epochs = [record for record in records if EPOCH_FIELD in record]
        if not is_first_process():
            return
        with atomic_write(path) as partial:
            partial.write_text("".join(json.dumps(record) + "\n" for record in records))
        self._file = open(path, "a")  # noqa: SIM115  closed in close()

    def write(self, record: dict[str, Any]) -> None:
        """Append one record, which has a step."""
        if EPOCH_FIELD in record:
            self.epochs.append(record)
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
