"""Attention in each of its forms against the formula, with its gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax import _xla, attention
from vit_jax._xla import CACHED_SCORES
from vit_jax.attention import attend, attention_per_head, attention_weights, compute_capability, cudnn_supports

B, N, M, H, K = 2, 7, 9, 3, 4


def formula(query, key, value, mask):
    """Compute attention in numpy with an explicit softmax."""
    scores = np.einsum("bnhk,bmhk->bhnm", query, key) / np.sqrt(query.shape[-1])
    scores = np.where(mask, scores, -np.inf)
    exp_scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.einsum("bhnm,bmhk->bnhk", exp_scores / exp_scores.sum(axis=-1, keepdims=True), value)


def case(n=N, m=M, dtype=float):
    rng = np.random.default_rng(0)
    parts = [rng.standard_normal((B, length, H, K)).astype(dtype) for length in (n, m, m)]
    mask = rng.random((B, 1, 1, m)) < 0.7
    mask[..., 0] = True
    return parts, mask


@pytest.mark.parametrize("rows", [False, True], ids=["of keys", "of queries and keys"])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_per_head_is_the_formula_with_its_gradient(masked, rows, x64):
    parts, mask = case()
    if rows:
        mask = mask & (np.arange(N)[:, None] >= np.arange(M) - 3)
    mask_argument = jnp.asarray(mask) if masked else None
    output = attention_per_head(*map(jnp.asarray, parts), mask_argument)
    np.testing.assert_allclose(output, formula(*parts, mask | (not masked)), rtol=1e-12, atol=1e-14)

    def explicit(query, key, value):
        return jnp.einsum("bhnm,bmhk->bnhk", attention_weights(query, key, mask_argument), value)

    gradients = [
        jax.grad(lambda *x, form=form: jnp.sin(form(*x)).sum(), argnums=(0, 1, 2))(*map(jnp.asarray, parts))
        for form in (explicit, lambda *x: attention_per_head(*x, mask_argument))
    ]
    for ours, theirs in zip(*gradients, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("images", [1, B])
@pytest.mark.parametrize("size", [1, H])
def test_any_number_of_heads_at_a_time_gives_the_same(size, images, monkeypatch, x64):
    parts, mask = case()
    bias = np.random.RandomState(5).standard_normal((images, H, N, M))
    mask, bias = jnp.asarray(mask[:images]), jnp.asarray(bias)
    weights = attention_weights(*map(jnp.asarray, parts[:2]), mask, bias)
    expected = jnp.einsum("bhnm,bmhk->bnhk", weights, parts[2])
    monkeypatch.setattr(attention, "heads_at_once", lambda batch_size, num_heads: size)
    output = attention_per_head(*map(jnp.asarray, parts), mask, bias)
    np.testing.assert_allclose(output, expected, rtol=1e-12, atol=1e-14)


def test_heads_are_multiplied_at_once_for_small_batches(monkeypatch):
    monkeypatch.setattr(_xla.jaxlib, "__version__", "0.12.0.1")
    assert [_xla.heads_at_once(batch, 12) for batch in (1, 2, 3, 4, 8, 100)] == [12, 4, 3, 2, 1, 1]
    assert _xla.heads_at_once(1, 3) == 3
    monkeypatch.setattr(_xla.jaxlib, "__version__", _xla.AFFECTED_JAXLIB)
    assert _xla.heads_at_once(1, 12) == 1


def list_residual_sizes(function, *arguments):
    """Return the sizes of the arrays that the backward pass stores, sorted."""
    return sorted(leaf.size for leaf in jax.tree.leaves(jax.vjp(function, *arguments)[1]))


def test_attention_per_head_keeps_no_scores_for_its_gradient():
    n, m = 40, 50  # every other array is smaller than a head's scores
    parts, mask = case(n, m)
    arguments = [*map(jnp.asarray, parts), jnp.asarray(mask)]
    assert max(list_residual_sizes(attention_per_head, *arguments)) < B * n * m
    bias = jnp.zeros((1, H, n, m))  # of every image: not stored for each
    assert max(list_residual_sizes(lambda *x: attention_per_head(*x, arguments[3], bias), *arguments[:3])) < B * n * m
    _, weights = attend(*arguments[:3], mask=arguments[3], return_weights=True)
    residuals = list_residual_sizes(lambda *x: attend(*x, mask=arguments[3], return_weights=True), *arguments[:3])
    assert weights.size in residuals


def test_attention_per_head_has_derivatives_of_every_kind(x64):
    parts, _ = case()
    arguments, direction = [*map(jnp.asarray, parts)], [jnp.asarray(np.cos(part)) for part in parts]

    def total(*x):
        return jnp.sin(attention_per_head(*x)).sum()

    _, forward = jax.jvp(total, arguments, direction)
    backward = sum(jnp.vdot(g, d) for g, d in zip(jax.grad(total, (0, 1, 2))(*arguments), direction, strict=True))
    np.testing.assert_allclose(forward, backward, rtol=1e-12)
    _, hessian_product = jax.jvp(jax.grad(total), arguments, direction)  # Hessian-vector product
    step = 1e-5
    ahead, behind = (
        jax.grad(total)(*(x + sign * step * d for x, d in zip(arguments, direction, strict=True))) for sign in (1, -1)
    )
    np.testing.assert_allclose(hessian_product, (ahead - behind) / (2 * step), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("heads", [1, H])
def test_large_scores_with_a_mask_agree_with_the_explicit_weights(heads):
    """From CACHED_SCORES on, a CPU computes one head at a time if heads share a mask and no weights are requested."""
    length = int(CACHED_SCORES**0.5) + 1
    parts, mask = case(length, length, np.float32)
    mask = np.broadcast_to(mask, (B, heads, 1, length))
    arguments = [*map(jnp.asarray, parts)]
    plain, none = attend(*arguments, mask=jnp.asarray(mask))
    with_weights, weights = attend(*arguments, mask=jnp.asarray(mask), return_weights=True)
    assert none is None
    np.testing.assert_allclose(plain, with_weights, rtol=1e-5, atol=1e-6)
    assert np.abs(np.where(mask, 0, weights)).max() == 0


@pytest.mark.parametrize(
    ("dtype", "size", "capability", "supported"),
    [
        ("bfloat16", 64, "9.0", True),
        ("float16", 80, "8.0", True),
        ("bfloat16", 128, "10.0", True),
        ("float32", 64, "9.0", False),
        ("bfloat16", 64, "7.5", False),
        ("bfloat16", 60, "9.0", False),
        ("bfloat16", 256, "9.0", False),
        ("bfloat16", 64, "gfx90a", False),
        ("bfloat16", 64, "", False),
    ],
)
def test_when_cudnn_is_used(dtype, size, capability, supported):
    assert cudnn_supports(jnp.dtype(dtype), size, capability) is supported


@pytest.mark.gpu
def test_cudnn_agrees_with_the_explicit_weights():
    """An odd number of tokens, as ViTs have; forward and gradient."""
    assert cudnn_supports(jnp.dtype("bfloat16"), 64, compute_capability())
    rng = np.random.default_rng(0)
    parts = [jnp.asarray(rng.standard_normal((2, 577, 12, 64)), jnp.bfloat16) for _ in range(3)]

    def total(weights):
        return lambda *x: jnp.square(attend(*x, return_weights=weights)[0].astype(jnp.float32)).sum()

    assert "cudnn" in jax.jit(lambda *x: attend(*x)[0]).lower(*parts).as_text()
    ours, theirs = (jax.jit(jax.grad(total(weights), argnums=(0, 1, 2)))(*parts) for weights in (False, True))
    for a, b in zip(ours, theirs, strict=True):
        a, b = (np.asarray(x, np.float32) for x in (a, b))
        assert np.abs(a - b).max() < 3e-2 * np.abs(b).max()  # bfloat16 has 8 bits
