"""One report of all images whose range of values was guessed: a line at the first one, their number at the end."""

import atexit
import threading
from collections import Counter

from vit_jax.progress import write_line


class GuessedRanges:
    """Counts images by the range that was guessed for them; every image once. Threads may share it.

    Prints a line at the first image, and that of `describe` when the process ends.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: set[int] = set()
        self._counts: Counter[str] = Counter()
        self._first = ""

    def add(self, key: int, name: str, largest: str, guess: str) -> None:
        """Count an image, and print a line if it is the first one. key: identifies the image."""
        with self._lock:
            if key in self._seen:
                return
            self._seen.add(key)
            self._counts[guess] += 1
            is_first = not self._first
            self._first = self._first or name
        if is_first:
            atexit.register(self._report)
            write_line(
                f"{name}: the largest value is {largest}, so its range is guessed as {guess}; others are counted "
                "(--max-value of training states the range; see docs/data.md)"
            )

    def describe(self) -> str:
        """Return the line that counts the images, "" if there is one at most, whose own line says all."""
        with self._lock:
            if len(self._seen) < 2:
                return ""
            kinds = ", ".join(f"{count:,} as {guess}" for guess, count in self._counts.most_common())
            return f"the range of {len(self._seen):,} images was guessed: {kinds} (first: {self._first})"

    def _report(self) -> None:
        line = self.describe()
        if line:
            write_line(line)


guessed_ranges = GuessedRanges()
