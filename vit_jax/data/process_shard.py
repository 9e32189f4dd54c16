"""Which rows of every batch a process reads, so that each picture is read by one process alone."""

from typing import Any, NamedTuple


class RowRange(NamedTuple):
    """The rows from `first` up to, not with, `end` of every batch."""

    first: int
    end: int


class ProcessShard:
    """What of a source, anything with a length and an index, falls into these rows of the batches from `start` on."""

    def __init__(self, source: Any, batch_size: int, start: int, rows: RowRange):
        self.source = source
        whole = range(start * batch_size, len(source))
        self.places = [place for place in whole if rows.first <= place % batch_size < rows.end]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Any:
        return self.source[self.places[index]]


def all_rows(batch_size: int) -> RowRange:
    """Every row."""
    return RowRange(0, batch_size)
