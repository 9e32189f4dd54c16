"""Rotary positions: the angles of each convention, the rotation, and that scores depend on distances."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.jaxprs import primitives_of
from vit_jax import InputError
from vit_jax.position import Rotary, make_rotation

EVA = Rotary(layout="interleaved", temperature=1e4, coordinates="index", reference_grid=(16, 16))
PERCEPTION = Rotary("interleaved", 1e4, coordinates="index", offset=1.0, reference_grid=(24, 24), axes="xy")
CONVENTIONS = {"DINOv3": Rotary(), "EVA-02": EVA, "Perception Encoder": PERCEPTION}


def test_dinov3s_angles():
    """Patch (1, 2) of 4x5, heads of 8: y = 2 * 1.5 / 4 - 1 = -0.25, x = 2 * 2.5 / 5 - 1 = 0; periods 1 and 10."""
    angles = Rotary().angles((4, 5), 8)[1 * 5 + 2]
    np.testing.assert_allclose(angles, [-np.pi / 2, -np.pi / 20, 0, 0], rtol=1e-15, atol=1e-15)


def test_eva02s_angles_are_scaled_to_its_grid_of_pretraining():
    """Patch (1, 2) of 4x5: y = 1 / 4 * 16 = 4, x = 2 / 5 * 16 = 6.4; periods 1 and 100."""
    np.testing.assert_allclose(EVA.angles((4, 5), 8)[7], [4, 0.04, 6.4, 0.064], rtol=1e-15)


def test_the_perception_encoders_angles_count_columns_first_and_from_one():
    """Patch (1, 2) of 4x5: x = 3 / 5 * 24 = 14.4, y = 2 / 4 * 24 = 12."""
    np.testing.assert_allclose(PERCEPTION.angles((4, 5), 8)[7], [14.4, 0.144, 12, 0.12], rtol=1e-15)


def test_without_a_reference_grid_coordinates_are_indices():
    rotary = Rotary("interleaved", coordinates="index", axes="xy")
    np.testing.assert_allclose(rotary.angles((4, 5), 8)[7], [2, 0.2, 1, 0.1], rtol=1e-15)


def test_stored_periods_take_the_place_of_the_formula():
    np.testing.assert_array_equal(Rotary(periods=(2.0, 8.0)).periods_for(8), [2, 8])
    np.testing.assert_allclose(Rotary().periods_for(16), [1, 10**0.5, 10, 10**1.5], rtol=1e-15)


@pytest.mark.parametrize("name", CONVENTIONS)
def test_a_rotation_turns_each_pair_by_its_angle(name, x64):
    """In complex numbers: (a + ib) e^(i angle)."""
    rotary, grid = CONVENTIONS[name], (3, 2)
    x = np.random.default_rng(0).normal(size=(2, 2 + 6, 3, 8))
    rotated = make_rotation(rotary, grid, 8, 2, jnp.float64)(jnp.asarray(x))
    pairs = np.stack([x[..., :4], x[..., 4:]], -1) if rotary.layout == "half" else x.reshape(*x.shape[:-1], 4, 2)
    turned = (pairs[..., 0] + 1j * pairs[..., 1])[:, 2:] * np.exp(1j * rotary.angles(grid, 8))[None, :, None]
    parts = np.stack([turned.real, turned.imag], -1)
    expected = np.moveaxis(parts, -1, -2).reshape(2, 6, 3, 8) if rotary.layout == "half" else parts.reshape(2, 6, 3, 8)
    np.testing.assert_array_equal(rotated[:, :2], x[:, :2])  # prefix tokens
    np.testing.assert_allclose(rotated[:, 2:], expected, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("name", CONVENTIONS)
def test_scores_depend_on_the_distance_of_two_patches(name, x64):
    rotation = make_rotation(CONVENTIONS[name], (5, 5), 8, 0, jnp.float64)
    query, key = np.random.default_rng(0).normal(size=(2, 1, 1, 1, 8))
    q, k = (rotation(jnp.broadcast_to(jnp.asarray(part), (1, 25, 1, 8)))[0, :, 0] for part in (query, key))
    scores = np.asarray(q @ k.T).reshape(5, 5, 5, 5)
    np.testing.assert_allclose(scores[:4, :4, :4, :4], scores[1:, 1:, 1:, 1:], rtol=0, atol=1e-13)
    assert np.abs(scores[0, 0] - scores[0, 1]).max() > 0.1


def test_tables_are_exact_and_half_precision_is_rotated_in_float32():
    rotation = make_rotation(EVA, (3, 3), 8, 1, jnp.bfloat16)
    assert rotation.cos.dtype == jnp.float32
    angles = np.repeat(EVA.angles((3, 3), 8), 2, axis=1)
    np.testing.assert_array_equal(rotation.cos[1:], np.cos(angles).astype(np.float32))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 10, 2, 8)), jnp.bfloat16)
    rotated = rotation(x)
    assert rotated.dtype == jnp.bfloat16
    exact = make_rotation(EVA, (3, 3), 8, 1, jnp.float32)(x.astype(jnp.float32))
    np.testing.assert_array_equal(rotated, exact.astype(jnp.bfloat16))


@pytest.mark.parametrize("name", CONVENTIONS)
def test_a_rotation_has_no_matrix_product_and_no_nested_jit(name):
    rotation = make_rotation(CONVENTIONS[name], (3, 3), 8, 1, jnp.float32)
    primitives = primitives_of(jax.make_jaxpr(rotation.__call__)(jnp.zeros((1, 10, 2, 8))).jaxpr)
    assert not primitives & {"dot_general", "jit", "pjit", "gather", "split", "stack", "rev"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(layout="whole"), "unknown rotary layout 'whole': one of half, interleaved"),
        (dict(coordinates="pixels"), "unknown rotary coordinates"),
        (dict(axes="yz"), "unknown rotary axes"),
        (dict(temperature=1.0), "temperature must be above 1, not 1.0"),
        (dict(temperature=float("inf")), "temperature must be above 1"),
        (dict(periods=(1.0, -1.0)), "periods must be positive"),
        (dict(offset=1.0), "offset and reference_grid need coordinates='index'"),
        (dict(reference_grid=(2, 2)), "offset and reference_grid need coordinates='index'"),
        (dict(coordinates="index", reference_grid=(0, 2)), "reference_grid must be at least 1x1"),
    ],
    ids=str,
)
def test_unknown_conventions_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        Rotary(**change)


def test_heads_that_cannot_be_rotated_are_refused():
    with pytest.raises(InputError, match="heads of a multiple of 4, not of 6"):
        Rotary().check_head_size(6)
    with pytest.raises(InputError, match="2 rotary periods, and heads of 16 need 4"):
        Rotary(periods=(1.0, 2.0)).check_head_size(16)
