"""A trace of a few steps, by jax.profiler."""

from pathlib import Path

import jax

WARM = 3  # steps after the start that are left out: compilation and what it leaves behind


class StepProfiler:
    """Traces `steps` steps of a run that begins at step `first`, into the folder; with 0 it does nothing."""

    def __init__(self, folder: Path, steps: int, first: int):
        self._folder, self._begin, self._end = folder, first + WARM, first + WARM + steps
        self._wanted, self._tracing = steps > 0, False

    def before(self, step: int) -> None:
        """To be called before each step, with the number of steps taken."""
        if self._wanted and not self._tracing and self._begin <= step < self._end:
            jax.profiler.start_trace(str(self._folder))
            self._tracing = True
        elif self._tracing and step >= self._end:
            self.close()
            print(f"profile: {self._end - self._begin} steps traced into {self._folder}/")

    def close(self) -> None:
        """Write what was traced, if anything was."""
        if self._tracing:
            self._tracing, self._wanted = False, False
            jax.profiler.stop_trace()
