"""Attention flow against networkx's maximum flow."""

import jax
import jax.numpy as jnp
import networkx
import numpy as np
import pytest

from tests.create import create
from vit_jax import (
    InputError,
    VisionTransformer,
    ViTConfig,
    attention_flow,
    flow_from_attention,
    forward_with_attention,
)


def flow_in_networkx(attention, source):
    """Return the flow to every input token of one image; attention [L, N, N] fused, source [N]."""
    graph = networkx.DiGraph()
    layers, n, _ = attention.shape
    for layer, i, j in np.ndindex(layers, n, n):
        graph.add_edge((layer + 1, i), (layer, j), capacity=(float(attention[layer, i, j]) + (i == j)) / 2)
    for i in np.flatnonzero(source):
        graph.add_edge("source", (layers, i), capacity=float(source[i]))
    return np.array([networkx.maximum_flow_value(graph, "source", (0, j)) for j in range(n)])


@pytest.mark.parametrize(
    ("layers", "n", "sharpness", "seed"),
    [
        (1, 3, 1, 0),
        (4, 11, 5, 3),
        *(pytest.param(*more, marks=pytest.mark.slow) for more in ((3, 7, 3, 1), (5, 9, 8, 2))),
    ],
)
def test_against_networkx(layers, n, sharpness, seed, x64):
    scores = jax.random.normal(jax.random.key(seed), (layers, 2, 2, n, n))
    attention = jax.nn.softmax(sharpness * scores, axis=-1)
    flows = jax.jit(flow_from_attention)(attention)
    weights = np.full(n, 1 / n)
    weighted = jax.jit(flow_from_attention)(attention, query=weights)
    for item in range(2):
        fused = np.asarray(attention[:, item]).mean(axis=1)
        np.testing.assert_allclose(flows[item], flow_in_networkx(fused, np.eye(n)[0]), atol=1e-12)
        np.testing.assert_allclose(weighted[item], flow_in_networkx(fused, weights), atol=1e-12)


def test_float32_and_sparse_capacities():
    """Hard attention: rows with a single 1, so that most paths have no capacity."""
    rng = np.random.default_rng(0)
    attention = np.eye(6, dtype=np.float32)[rng.integers(0, 6, (4, 1, 6))]
    flows = flow_from_attention(jnp.asarray(attention), query=2)
    np.testing.assert_allclose(flows[0], flow_in_networkx(attention[:, 0], np.eye(6)[2]), atol=1e-5)


def test_from_a_model():
    config = ViTConfig(
        image_size=(24, 16),
        patch_size=(8, 8),
        width=16,
        depth=3,
        num_heads=2,
        mlp_dim=24,
        num_classes=3,
        num_registers=1,
    )
    model = create(VisionTransformer, config)
    images = jax.random.normal(jax.random.key(1), (2, 24, 16, 3))
    flows = jax.jit(attention_flow)(model, images)
    attention = jax.jit(lambda m, x: forward_with_attention(m, x, head_fusion="mean"))(model, images).attention
    for item in range(2):
        expected = flow_in_networkx(np.asarray(attention[:, item]), np.eye(8)[0])[2:]
        np.testing.assert_allclose(flows[item], expected, atol=1e-5)
    repeated = jax.jit(attention_flow)(model, images, jnp.array([[0, 1, 2], [0, 1, 2]]))
    assert repeated.shape == (2, 3, 6)
    np.testing.assert_allclose(repeated[:, 1], flows, atol=1e-6)


def test_wrong_requests():
    attention = jnp.full((2, 1, 5, 5), 0.2)
    with pytest.raises(InputError, match="no token 5: there are 5"):
        flow_from_attention(attention, query=5)
    with pytest.raises(InputError, match="at most 256 tokens, not 300"):
        flow_from_attention(jnp.zeros((1, 1, 300, 300)))
    with pytest.raises(InputError, match="unknown head_fusion"):
        flow_from_attention(attention[:, :, None], head_fusion="sum")
    with pytest.raises(InputError, match="attention must be"):
        flow_from_attention(attention[0, 0])
    big = ViTConfig(image_size=(136, 128), patch_size=(8, 8), width=16, depth=1, num_heads=2, mlp_dim=24, num_classes=3)
    with pytest.raises(InputError, match="not 273; use a rollout"):
        attention_flow(create(VisionTransformer, big), jnp.zeros((1, 136, 128, 3)))
