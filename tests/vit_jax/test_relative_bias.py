"""Relative position bias: which entry of a table belongs to which pair of tokens, and resizing to other grids."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.jaxprs import WORKAROUNDS, primitives_of
from tests.live_timm import load
from tests.optional import torch
from vit_jax import InputError
from vit_jax.position import (
    RESIZE_METHODS,
    RelativePositions,
    count_distances,
    relative_position_index,
    resize_relative_bias,
)

GRIDS = [((3, 3), (5, 5)), ((4, 4), (3, 3)), ((3, 2), (3, 5)), ((14, 14), (12, 20)), ((1, 4), (2, 2))]


def draw_table(grid, heads=2):
    return np.random.default_rng(0).normal(size=(count_distances(grid), heads))


def test_a_small_index_by_hand():
    """1x2 patches: distances -1, 0, 1, then [class] as the query, as the key, and both."""
    np.testing.assert_array_equal(relative_position_index((1, 2)), [[5, 3, 3], [4, 1, 0], [4, 2, 1]])


@pytest.mark.parametrize("grid", [(1, 1), (1, 2), (3, 2), (4, 4)])
def test_the_bias_is_the_tables_entry_at_every_index(grid, x64):
    table = draw_table(grid)
    bias = RelativePositions(grid, grid, "geometric").bias(jnp.asarray(table))
    np.testing.assert_array_equal(bias[0], table[relative_position_index(grid)].transpose(2, 0, 1))


def test_the_bias_needs_no_nested_jit():
    positions = RelativePositions((2, 2), (3, 2), "geometric")
    jaxpr = jax.make_jaxpr(positions.bias)(jnp.zeros((count_distances((2, 2)), 2)))
    assert not primitives_of(jaxpr.jaxpr) & {*WORKAROUNDS, "jit", "pjit"}


@pytest.mark.parametrize(("old", "new"), GRIDS)
def test_bilinear_resizing_is_torchs(old, new, x64):
    table = draw_table(old)
    (height, width), size = ([2 * n - 1 for n in grid] for grid in (old, new))
    grid = torch.from_numpy(table[:-3].T.reshape(1, 2, height, width).copy())
    expected = torch.nn.functional.interpolate(grid, size=size, mode="bilinear")[0].numpy().reshape(2, -1).T
    resized = resize_relative_bias(jnp.asarray(table), old, new, method="bilinear")
    np.testing.assert_allclose(resized[:-3], expected, atol=1e-12)
    np.testing.assert_array_equal(resized[-3:], table[-3:])


@pytest.mark.filterwarnings("ignore::UserWarning")  # of torch, about timm's indexing
@pytest.mark.parametrize(("old", "new"), GRIDS)
def test_geometric_resizing_is_timms(old, new, x64):
    """timm interpolates in float32."""
    load()
    from timm.layers import resize_rel_pos_bias_table

    table = draw_table(old)
    shape = (count_distances(new), 2)
    expected = resize_rel_pos_bias_table(torch.from_numpy(table), new, shape, old)
    resized = resize_relative_bias(jnp.asarray(table), old, new, method="geometric")
    np.testing.assert_allclose(resized, expected, atol=2e-6)


def test_geometric_resizing_keeps_near_distances_and_reaches_the_far_ones(x64):
    """Of 5 to 9 distances the middle three stay; the ends are the ends."""
    table = np.concatenate([np.arange(5.0) ** 2, np.zeros(3)])[:, None]
    resized = resize_relative_bias(jnp.asarray(table), (1, 3), (1, 5), method="geometric")[:-3, 0]
    np.testing.assert_allclose(resized[3:6], [1, 4, 9], rtol=1e-12)
    np.testing.assert_allclose(resized[jnp.array([0, 8])], [0, 16], rtol=0, atol=1e-3)


def test_wrong_requests():
    with pytest.raises(InputError, match="a relative position table of 12 entries is not of a 3x3 grid"):
        resize_relative_bias(jnp.zeros((12, 2)), (3, 3), (2, 2), method="bilinear")
    with pytest.raises(InputError, match="'geometric' needs distances, an odd number, not 4 and 5"):
        RESIZE_METHODS["geometric"](4, 5)
