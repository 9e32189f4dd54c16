"""Read many images in threads, in order and ahead of their use, under one policy for corrupt files."""

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, TypeVar

from vit_jax.data.decode import CorruptImageError
from vit_jax.progress import write_line

THREADS = min(16, 2 * (os.cpu_count() or 1))  # Pillow decodes outside the interpreter's lock
PARTS_PER_THREAD = 4  # what is read ahead comes in so many lists per thread; grain counts them all at each one

Item = TypeVar("Item")
Result = TypeVar("Result")
OnCorrupt = Literal["raise", "skip"]


def handle_corrupt(error: CorruptImageError, on_corrupt: OnCorrupt) -> None:
    """Raise the error, or with "skip" report it on stderr; the caller then leaves the image out."""
    if on_corrupt == "raise":
        raise error
    write_line(f"skipped: {error}")


class _Parts:
    """A random-access source in parts of `size` items: threads then pass on lists, which costs less than items."""

    def __init__(self, source: Any, size: int):
        self.source, self.size = source, size

    def __len__(self) -> int:
        return -(-len(self.source) // self.size)

    def __getitem__(self, index: int) -> list[Any]:
        start = index * self.size
        return [self.source[i] for i in range(start, min(start + self.size, len(self.source)))]


def iterate_in_threads(source: Any, *, ahead: int) -> Iterator[Any]:
    """Iterate over a source with a length and an index, in order, reading `ahead` items ahead in threads.

    Raises what reading an item raises, when the list that holds the item is due.
    """
    if not len(source):
        return iter(())
    import grain  # seconds to import

    parts = _Parts(source, max(1, ahead // (PARTS_PER_THREAD * THREADS)))
    options = grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=max(ahead // parts.size, THREADS))
    return itertools.chain.from_iterable(grain.MapDataset.source(parts).to_iter_dataset(options))


class _Results:
    """(item, read(item) or the CorruptImageError that it raised), as a random-access source."""

    def __init__(self, items: Sequence[Any], read: Callable[[Any], Any]):
        self.items, self.read = items, read

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        item = self.items[index]
        try:
            return item, self.read(item)
        except CorruptImageError as error:
            return item, error


def try_each(
    items: Sequence[Item], read: Callable[[Item], Result], *, ahead: int = THREADS
) -> Iterator[tuple[Item, Result | CorruptImageError]]:
    """Yield (item, read(item)) in order, read in threads; a corrupt image yields its error in place of a result."""
    return iterate_in_threads(_Results(items, read), ahead=ahead)


def read_each(
    items: Sequence[Item], read: Callable[[Item], Result], *, ahead: int = THREADS, on_corrupt: OnCorrupt = "raise"
) -> Iterator[tuple[Item, Result]]:
    """Yield (item, read(item)) in order, read in threads.

    on_corrupt: "raise" raises the CorruptImageError of an item at its turn, "skip" reports it and leaves the item out.
    """
    for item, result in try_each(items, read, ahead=ahead):
        if isinstance(result, CorruptImageError):
            handle_corrupt(result, on_corrupt)
        else:
            yield item, result
