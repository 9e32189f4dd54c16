"""The metrics log: metrics.jsonl, TensorBoard when asked for, and the figure of the curves."""

import json
from pathlib import Path
from typing import Any

from vit_jax import InputError
from vit_jax.files import written_file


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


class MetricsLog:
    """Appends records to metrics.jsonl (and event files). What came after `step` is dropped at the start.

    Raises InputError when TensorBoard is asked for and tensorboardX is not installed.
    """

    def __init__(self, folder: Path, *, step: int, tensorboard: bool):
        path = folder / "metrics.jsonl"
        kept = [record for record in read_metrics(path) if record["step"] <= step]
        with written_file(path) as beside:
            beside.write_text("".join(json.dumps(record) + "\n" for record in kept))
        self._writer = None
        if tensorboard:
            try:
                from tensorboardX import SummaryWriter
            except ImportError as error:
                raise InputError("--tensorboard needs tensorboardX; pip install 'vit-jax[tensorboard]'") from error
            self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else None)
        self._file = open(path, "a")  # noqa: SIM115  closed in close()

    def write(self, record: dict[str, Any]) -> None:
        """Append one record, which has a step; numbers also go to TensorBoard."""
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        if self._writer is not None:
            for name, value in record.items():
                if isinstance(value, float):
                    self._writer.add_scalar(name, value, record["step"])

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        if self._writer is not None:
            self._writer.close()
