"""Rollout against its formula in plain numpy, and its properties."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.create import create
from vit_jax import (
    InputError,
    VisionTransformer,
    ViTConfig,
    attention_rollout,
    cls_attention,
    forward_with_attention,
    rollout_from_images,
)

FUSE = {"mean": np.mean, "max": np.max, "min": np.min}


@pytest.fixture(scope="module")
def attention():
    scores = jax.random.normal(jax.random.key(0), (4, 3, 2, 7, 7))
    return jax.nn.softmax(2 * scores, axis=-1)


def rollout_in_numpy(attention, fusion="mean", discard=0.0, start=0):
    """Return the rollout of one item and one layer at a time, in float64."""
    rollouts = []
    for item in np.moveaxis(np.asarray(attention, np.float64), 1, 0):
        rollout = np.eye(item.shape[-1])
        for layer in item[start:]:
            fused = FUSE[fusion](layer, axis=0)
            for row in fused:
                for column in np.argsort(row)[: int(discard * len(row))]:
                    if column != 0:
                        row[column] = 0
            fused = fused + np.eye(len(fused))
            rollout = (fused / fused.sum(axis=1, keepdims=True)) @ rollout
        rollouts.append(rollout)
    return np.stack(rollouts)


@pytest.mark.parametrize("fusion", FUSE)
@pytest.mark.parametrize("discard", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("start", [0, 2])
def test_the_formula(attention, fusion, discard, start):
    options = dict(head_fusion=fusion, discard_ratio=discard, start_layer=start)
    matrix = jax.jit(lambda a: attention_rollout(a, **options))(attention)
    np.testing.assert_allclose(matrix, rollout_in_numpy(attention, fusion, discard, start), atol=1e-6)
    np.testing.assert_allclose(matrix.sum(axis=-1), 1, atol=1e-6)
    for query in (0, 3, -1):
        row = attention_rollout(attention, query=query, **options)
        np.testing.assert_allclose(row, matrix[:, query], atol=1e-6)


def test_items_of_a_batch_are_independent(attention):
    batch = attention_rollout(attention, discard_ratio=0.5)
    for i in range(3):
        np.testing.assert_allclose(
            batch[i], attention_rollout(attention[:, i : i + 1], discard_ratio=0.5)[0], atol=1e-7
        )
    mapped = jax.vmap(lambda a: attention_rollout(a[:, None], query=0)[0], in_axes=1)(attention)
    np.testing.assert_allclose(mapped, attention_rollout(attention, query=0), atol=1e-7)


def test_heads_may_be_fused_before(attention):
    np.testing.assert_allclose(attention_rollout(attention.mean(axis=2)), attention_rollout(attention), atol=1e-7)


def test_attention_to_oneself_gives_the_identity():
    identity = jnp.broadcast_to(jnp.eye(5), (3, 1, 2, 5, 5))
    np.testing.assert_allclose(attention_rollout(identity)[0], np.eye(5), atol=1e-7)


def test_rollout_from_images_equals_rollout_of_the_attention_on_a_rectangular_grid():
    config = ViTConfig(
        image_size=(24, 16), patch_size=(8, 8), width=16, depth=3, num_heads=2, mlp_dim=24, num_classes=3
    )
    model = create(VisionTransformer, config)
    images = jax.random.normal(jax.random.key(1), (2, 24, 16, 3))
    attention = forward_with_attention(model, images).attention
    for options in (dict(), dict(head_fusion="max", discard_ratio=0.4)):
        rollout = jax.jit(lambda m, x, o=options: rollout_from_images(m, x, **o))(model, images)
        np.testing.assert_allclose(rollout, attention_rollout(attention, **options), atol=1e-6)
    assert cls_attention(attention).shape == (2, 2, 6)
    np.testing.assert_array_equal(cls_attention(attention, layer=1), attention[1, :, :, 0, 1:])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(head_fusion="sum"), "unknown head_fusion 'sum'"),
        (dict(discard_ratio=1.0), "discard_ratio must be in"),
        (dict(start_layer=4), "no layer 4: there are 4"),
        (dict(query=7), "no token 7: there are 7"),
    ],
)
def test_wrong_requests(attention, options, message):
    with pytest.raises(InputError, match=message):
        attention_rollout(attention, **options)
    with pytest.raises(InputError, match="not \\(2, 7, 7\\)"):
        attention_rollout(attention[0, 0])
    with pytest.raises(InputError, match="no layer 9"):
        cls_attention(attention, layer=9)
    with pytest.raises(InputError, match="num_prefix must be 1"):
        cls_attention(attention, num_prefix=7)
