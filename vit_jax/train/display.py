"""The progress of training on the terminal or in a log."""

import sys
import time
from types import TracebackType

import jax

from vit_jax import notes, progress
from vit_jax.train.state import Totals


class TrainDisplay:
    """A progress display over the steps of a run, with loss, accuracy, images per second and time left.

    Writes to stdout. Use as a context manager.
    """

    def __init__(self, first_step: int, total_steps: int, epochs: int):
        self._epochs, self._step = epochs, first_step
        self._seconds = progress.TERMINAL_SECONDS if sys.stdout.isatty() else progress.LINE_SECONDS
        self._bar = progress.open_progress(total_steps, unit="steps", initial=first_step, file=sys.stdout)
        self._images, self._shown = 0.0, time.monotonic()

    def __enter__(self) -> "TrainDisplay":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def start_epoch(self, epoch: int, images: float) -> None:
        """Show the epoch, counted from 0, of which that many images were processed before a run was resumed."""
        self._bar.set_description(f"epoch {epoch + 1}/{self._epochs}", refresh=False)
        self._images, self._shown = images, time.monotonic()

    def exclude_compilation(self, step: int) -> None:
        """Restart the clock after the first step, whose compilation would distort the rate."""
        self._bar.initial = self._bar.n = self._step = step
        self._bar.unpause()
        self._shown = time.monotonic()

    def is_due(self) -> bool:
        """Return whether `show` should be called."""
        return time.monotonic() - self._shown >= self._seconds

    def show(self, step: int, totals: Totals) -> dict[str, float]:
        """Show the means of the epoch so far, and return them with the images per second since the last call."""
        loss, correct, count = (float(value) for value in jax.device_get(totals))
        now = time.monotonic()
        rate = (count - self._images) / max(now - self._shown, 1e-9)
        self._images, self._shown = count, now
        record = {"loss": loss / count, "accuracy": correct / count, "images_per_second": rate}
        text = f"loss {record['loss']:.4f}, accuracy {record['accuracy']:.4f}, {rate:.1f} images/s"
        self._bar.set_postfix_str(text, refresh=False)
        self._bar.update(step - self._step)
        self._bar.refresh()
        self._step = step
        return record

    def write_line(self, text: str) -> None:
        """Write a note above the display."""
        if notes.is_quiet():
            return
        if sys.stdout.isatty():
            self._bar.write(text, file=sys.stdout)
        else:
            print(text, flush=True)
