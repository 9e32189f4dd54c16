"""A trace of a few training steps by jax.profiler."""

from pathlib import Path

import jax

WARM_UP = 3  # steps after the start that are not traced: compilation and its after-effects


class StepProfiler:
    """Traces `steps` steps of a run that starts at step `first` into its folder; with 0 it does nothing."""

    def __init__(self, run: Path | None, steps: int, first: int):
        self._folder = None if run is None else run / "profile"
        self._begin, self._end = first + WARM_UP, first + WARM_UP + steps
        self._is_pending, self._is_tracing = steps > 0 and run is not None, False

    def before(self, step: int) -> None:
        """Start or end the trace. Call before each step, with the number of steps done."""
        if self._is_pending and not self._is_tracing and self._begin <= step < self._end:
            jax.profiler.start_trace(str(self._folder))
            self._is_tracing = True
        elif self._is_tracing and step >= self._end:
            self.close()
            print(f"profile: {self._end - self._begin} steps traced into {self._folder}/")

    def close(self) -> None:
        """Write the trace, if there is one."""
        if self._is_tracing:
            self._is_tracing, self._is_pending = False, False
            jax.profiler.stop_trace()
