"""From a random-access source to batches: shuffled or in order, sharded over processes, read in threads.

The order of an epoch is a function of (seed, epoch) alone, so a run resumes exactly at any batch.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

from vit_jax.data.process_shard import ProcessShard, RowRange, all_rows
from vit_jax.data.reading import iterate_in_threads

Item = TypeVar("Item")
Batch = TypeVar("Batch")


def batches_per_epoch(count: int, batch_size: int) -> int:
    """Return how many batches hold `count` items, the last one included."""
    return -(-count // batch_size)


def pad_batch_to(size: int, items: Sequence[Item], filler: Item) -> tuple[list[Item], np.ndarray]:
    """Fill up items to `size` of them, and return them with float32 weights [size]: 1, and 0 for each filler."""
    missing = size - len(items)
    weights = np.repeat(np.array([1, 0], np.float32), [len(items), missing])
    return [*items, *[filler] * missing], weights


def shuffle(source: Any, *, seed: int, epoch: int) -> Any:
    """Return the source in the order that (seed, epoch) decides."""
    import grain  # seconds to import

    order_seed = int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])
    return grain.MapDataset.source(source).shuffle(seed=order_seed)


def read_batches(
    source: Any,
    batch_size: int,
    collate: Callable[[list[Any], int], Batch],
    *,
    start: int = 0,
    rows: RowRange | None = None,
) -> Iterator[Batch]:
    """Yield the batches of a source from batch `start` on; every item comes once.

    source: anything with a length and an index.
    collate: (items, size) -> a batch of `size` rows. The last batch of a source may have fewer items than rows, even
        none where another process reads them all: see `pad_batch_to`.
    rows: the rows of every batch that this process reads, by default all of them.
    """
    rows = rows or all_rows(batch_size)
    size = rows.end - rows.first
    items = iterate_in_threads(ProcessShard(source, batch_size, start, rows), ahead=2 * size)
    for _ in range(start, batches_per_epoch(len(source), batch_size)):
        yield collate(list(itertools.islice(items, size)), size)
