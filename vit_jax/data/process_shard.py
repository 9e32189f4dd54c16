"""Which rows of every batch a process reads, so that each image is read by one process alone."""

from typing import Any, NamedTuple


class RowRange(NamedTuple):
    """The rows from `first` up to, but not including, `end` of every batch."""

    first: int
    end: int


class ProcessShard:
    """The items of a source that fall into these rows of its batches, from batch `start` on.

    source: anything with a length and an index.
    """

    def __init__(self, source: Any, batch_size: int, start: int, rows: RowRange):
        self.source = source
        positions = range(start * batch_size, len(source))
        self.positions = [i for i in positions if rows.first <= i % batch_size < rows.end]

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: int) -> Any:
        return self.source[self.positions[index]]


def all_rows(batch_size: int) -> RowRange:
    """Return the range of every row."""
    return RowRange(0, batch_size)
