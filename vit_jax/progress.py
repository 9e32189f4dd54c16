"""Progress display of long work: rate and time left, as a bar on a terminal and as plain lines elsewhere.

A thin layer over tqdm, shared by every long-running function of the libraries and programs.
"""

import sys
from typing import Any

from tqdm import tqdm

from vit_jax import notes

TERMINAL_SECONDS = 0.5  # between updates of the bar
LINE_SECONDS = 10.0  # between lines when the output is not a terminal
LINE_FORMAT = "{desc}{n_fmt}/{total_fmt}{unit}, {rate_fmt}, {remaining} left{postfix}"


class _Lines(tqdm):
    """A tqdm that prints each update on its own line, for logs and pipes."""

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        """Print a line if there was progress since the last one. The caller reports the end."""
        if self.n > getattr(self, "_written", self.initial) and (self.total is None or self.n < self.total):
            self._written = self.n
            print(msg or str(self), file=self.fp, flush=True)
        return True

    @classmethod
    def write(cls, s: str, file: Any = None, end: str = "\n", nolock: bool = False) -> None:
        """Print a line between the lines of the display: there is no bar to clear and redraw."""
        print(s, file=file, end=end)

    def close(self) -> None:
        """Close the display without a bar's cursor movements."""
        if not getattr(self, "disable", True):
            self.disable = True
            self._decr_instances(self)


def open_progress(
    total: int | None,
    *,
    unit: str,
    description: str = "",
    initial: int = 0,
    file: Any = None,
    scale: bool = False,
) -> tqdm:
    """Open a progress display: a context manager with update(n), set_postfix_str(text) and write(line).

    A quiet program shows none; see vit_jax/notes.py.

    total:   number of units, None when it is unknown.
    initial: units completed before a resumed run; they do not count towards the rate.
    file:    the stream, stderr by default.
    scale:   print counts with SI prefixes, for bytes.
    """
    stream = sys.stderr if file is None else file
    terminal = stream.isatty()
    options: dict[str, Any] = dict(total=total, unit=f" {unit}", initial=initial, file=stream, unit_scale=scale)
    options["disable"] = notes.is_quiet()
    options |= dict(desc=f"{description}: " if description else None, leave=False, dynamic_ncols=terminal)
    if terminal:
        return tqdm(mininterval=TERMINAL_SECONDS, **options)
    return _Lines(mininterval=LINE_SECONDS, maxinterval=LINE_SECONDS, bar_format=LINE_FORMAT, **options)


def write_line(text: str) -> None:
    """Write a line to stderr, above a bar that is on display."""
    if sys.stderr.isatty():
        tqdm.write(text, file=sys.stderr)
    else:
        print(text, file=sys.stderr, flush=True)
