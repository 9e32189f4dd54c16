"""Progress of long work: rate and time left, as a bar on a terminal and as plain lines elsewhere.

A thin layer over tqdm, which every long-running function of this library and its programs uses.
"""

import sys
from typing import Any

from tqdm import tqdm

TERMINAL_SECONDS = 0.5  # between updates of the bar
LINE_SECONDS = 10.0  # between lines where there is no terminal
LINE_FORMAT = "{desc}{n_fmt}/{total_fmt}{unit}, {rate_fmt}, {remaining} left{postfix}"


class _Lines(tqdm):
    """A tqdm that writes each update as a line of its own, for logs and pipes."""

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        """Write a line if work was done since the last one and more is left: the end is for the caller to report."""
        if self.n > getattr(self, "_written", self.initial) and (self.total is None or self.n < self.total):
            self._written = self.n
            print(msg or str(self), file=self.fp, flush=True)
        return True

    def close(self) -> None:
        """End the display without the cursor movements of a bar."""
        if not getattr(self, "disable", True):
            self.disable = True
            self._decr_instances(self)


def progress(
    total: int | None,
    *,
    unit: str,
    description: str = "",
    initial: int = 0,
    file: Any = None,
    scale: bool = False,
) -> tqdm:
    """Open a progress display: a context manager with update(n), set_postfix_str(text) and write(line).

    total: how many units there are; None where it is unknown.
    initial: units that were done before, of a resumed run; they do not count for the rate.
    file: the stream, stderr by default.
    scale: print counts with SI prefixes, for bytes.
    """
    stream = sys.stderr if file is None else file
    terminal = stream.isatty()
    options: dict[str, Any] = dict(total=total, unit=f" {unit}", initial=initial, file=stream, unit_scale=scale)
    options |= dict(desc=f"{description}: " if description else None, leave=False, dynamic_ncols=terminal)
    if terminal:
        return tqdm(mininterval=TERMINAL_SECONDS, **options)
    return _Lines(mininterval=LINE_SECONDS, maxinterval=LINE_SECONDS, bar_format=LINE_FORMAT, **options)
