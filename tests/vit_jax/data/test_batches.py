"""Batches of any source: padded, sharded, resumed; images read in threads under one policy for corrupt ones."""

import subprocess
import sys

import numpy as np
import pytest

from vit_jax.data.batches import batches_per_epoch, pad_batch_to, read_batches, shuffle
from vit_jax.data.cache import ImageCache
from vit_jax.data.decode import CorruptImageError
from vit_jax.data.process_shard import RowRange
from vit_jax.data.reading import iterate_in_threads, read_each


def pad(items, size):
    return pad_batch_to(size, items, -1)[0]


def test_fillers_have_weight_0():
    items, weights = pad_batch_to(4, ["a", "b"], "z")
    assert items == ["a", "b", "z", "z"]
    assert weights.dtype == np.float32
    assert weights.tolist() == [1, 1, 0, 0]
    assert pad_batch_to(2, ["a", "b"], "z")[1].tolist() == [1, 1]


def test_the_last_batch_is_padded_and_any_batch_can_be_the_first():
    expected = [[0, 1, 2], [3, 4, 5], [6, -1, -1]]
    assert list(read_batches(range(7), 3, pad)) == expected
    assert list(read_batches(range(7), 3, pad, start=2)) == expected[2:]
    assert batches_per_epoch(7, 3) == 3
    assert list(read_batches(range(0), 3, pad)) == []


def test_processes_read_their_own_rows_of_every_batch():
    parts = [list(read_batches(range(9), 4, pad, rows=rows)) for rows in (RowRange(0, 2), RowRange(2, 4))]
    assert [a + b for a, b in zip(*parts, strict=True)] == list(read_batches(range(9), 4, pad))
    assert parts[1][-1] == [-1, -1]  # all of the last batch is read by the other process


def test_the_order_of_an_epoch_is_decided_by_seed_and_epoch():
    orders = {(s, e): list(shuffle(range(50), seed=s, epoch=e)) for s in (0, 1) for e in (0, 1)}
    assert all(sorted(order) == list(range(50)) for order in orders.values())
    assert len({tuple(order) for order in orders.values()}) == 4
    assert list(shuffle(range(50), seed=1, epoch=1)) == orders[1, 1]


@pytest.mark.parametrize("ahead", [1, 64, 1000])
def test_items_read_in_threads_keep_their_order(ahead):
    assert list(iterate_in_threads(range(1001), ahead=ahead)) == list(range(1001))
    assert list(iterate_in_threads([], ahead=ahead)) == []


def read(item):
    if item % 3 == 2:
        raise CorruptImageError(f"{item}.png: not a readable image")
    return 10 * item


def test_corrupt_images_are_skipped_and_named_or_raised_at_their_turn(capsys):
    assert list(read_each(range(7), read, on_corrupt="skip")) == [(0, 0), (1, 10), (3, 30), (4, 40), (6, 60)]
    names = [f"skipped: {i}.png: not a readable image" for i in (2, 5)]
    assert capsys.readouterr().err.splitlines() == names
    reading = read_each(range(7), read)
    assert [next(reading), next(reading)] == [(0, 0), (1, 10)]
    with pytest.raises(CorruptImageError, match=r"2\.png"):
        next(reading)


def test_a_cache_computes_what_fits_once():
    cache, calls = ImageCache(20), []

    def load(index):
        def compute():
            calls.append(index)
            return np.full(8, index, np.uint8)

        return compute

    for _ in range(2):
        assert [cache.get(i, load(i))[0] for i in range(3)] == [0, 1, 2]
    assert calls == [0, 1, 2, 2]
    assert (len(cache), cache.free_bytes) == (2, 4)
    subset = cache.take([1, 2])
    assert (len(subset), subset.free_bytes) == (1, 4)
    assert subset.get(0, load(7))[0] == 1


def test_public_names_import_without_the_slow_dependencies():
    code = (
        "import sys; from vit_jax.data import *; print({'grain', 'sklearn', 'tensorflow_datasets'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
