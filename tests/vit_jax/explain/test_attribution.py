"""Integrated gradients and RISE against torch, and their properties."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tests.reference as reference
from tests.optional import torch
from vit_jax import InputError, integrated_gradients, rise
from vit_jax.explain.attribution import draw_rise_masks, sum_over_patches
from weights_convert import convert

SIZE, CLASSES = (32, 24), 7
TARGETS = np.array([[2, 0], [5, 1]])


@pytest.fixture(scope="module")
def theirs():
    return reference.tiny_torch(SIZE, num_classes=CLASSES)


def ours(theirs):
    return convert(reference.state_arrays(theirs), image_size=SIZE, num_heads=3)


def as_torch(images):
    return torch.from_numpy(np.array(images, np.float64).transpose(0, 3, 1, 2).copy())


def test_integrated_gradients_against_torch(theirs, x64):
    images = reference.images(3, 2, *SIZE)
    baseline = np.full((1, 1, 1, 3), -0.2)
    maps, gap = jax.jit(lambda m, x, t: integrated_gradients(m, x, t, baseline=baseline, steps=6))(
        ours(theirs), images, TARGETS
    )
    points, weights = np.polynomial.legendre.leggauss(6)
    x, x0 = as_torch(images), torch.full((2, 3, *SIZE), -0.2, dtype=torch.float64)
    for i in range(2):
        for k in range(2):
            total = torch.zeros_like(x[i])
            for a, w in zip((points + 1) / 2, weights / 2, strict=True):
                at = (x0[i] + a * (x[i] - x0[i]))[None].requires_grad_(True)
                total += w * torch.autograd.grad(theirs(at)[0, TARGETS[i, k]], at)[0][0]
            pixels = ((x[i] - x0[i]) * total).sum(dim=0).numpy()
            expected = pixels.reshape(4, 8, 3, 8).sum(axis=(1, 3)).ravel()
            assert reference.relative_error(maps[i, k], expected) < 1e-10
            with torch.no_grad():
                logit_difference = (theirs(x)[i] - theirs(x0)[i])[TARGETS[i, k]].item()
            np.testing.assert_allclose(gap[i, k], expected.sum() - logit_difference, atol=1e-12)


@pytest.mark.slow
def test_more_steps_close_the_completeness_gap(theirs, x64):
    model, images = ours(theirs), reference.images(3, 2, *SIZE)
    targets = jnp.asarray(TARGETS[:, 0])
    coarse, fine = (
        jax.jit(lambda m, x, t, s=steps: integrated_gradients(m, x, t, steps=s))(model, images, targets)
        for steps in (3, 80)
    )
    assert coarse.maps.shape == (2, 12)
    assert coarse.gap.shape == (2,)
    assert np.abs(fine.gap).max() < np.abs(coarse.gap).max() / 1e6
    same = jax.jit(lambda m, x, t: integrated_gradients(m, x, t, baseline=x))(model, images, targets)
    assert not np.asarray(same.maps).any()
    with pytest.raises(InputError, match="steps must be at least 1"):
        integrated_gradients(model, images, TARGETS, steps=0)
    with pytest.raises(InputError, match="does not broadcast"):
        integrated_gradients(model, images, TARGETS, baseline=np.zeros((5, 5, 3)))
    with pytest.raises(InputError, match="no class 1"):
        integrated_gradients(model, images, TARGETS + 8)


def test_sum_over_patches():
    pixels = jnp.arange(2 * 4 * 6 * 3.0).reshape(2, 4, 6, 3)
    sums = sum_over_patches(pixels, (2, 3))
    assert sums.shape == (2, 4)
    assert float(sums[1, 2]) == float(pixels[1, 2:4, :3].sum())


def test_rise_masks():
    masks = np.asarray(draw_rise_masks(jax.random.key(0), 400, (32, 24), grid=(4, 3), keep=0.3))
    assert masks.shape == (400, 32, 24)
    assert masks.min() >= 0
    assert masks.max() <= 1 + 1e-6
    np.testing.assert_allclose(masks.mean(axis=0), 0.3, atol=0.12)  # five standard errors of 400 draws
    # Bilinear between cells of 8 pixels: a step of a pixel changes a mask by at most 1/8.
    assert np.abs(np.diff(masks, axis=1)).max() <= 1 / 8 + 1e-6
    assert np.abs(np.diff(masks, axis=2)).max() <= 1 / 8 + 1e-6
    assert len({mask.tobytes() for mask in masks}) > 390


@pytest.mark.parametrize("count", [pytest.param(8, marks=pytest.mark.slow), 11])
def test_rise_against_torch(theirs, count, x64):
    """With our masks, and torch's probabilities of the masked images."""
    images, key = reference.images(3, 2, *SIZE), jax.random.key(5)
    options = dict(num_masks=count, grid=(4, 3), keep=0.4, batch_size=8)
    maps = jax.jit(lambda m, x, t: rise(m, x, t, key=key, **options))(ours(theirs), images, TARGETS)
    assert maps.shape == (2, 2, 32, 24)
    parts = [draw_rise_masks(jax.random.fold_in(key, i), 4, SIZE, grid=(4, 3), keep=0.4) for i in range(3)]
    masks = np.concatenate(parts)[:count]
    for i in range(2):
        with torch.no_grad():
            probabilities = theirs(as_torch(images[i] * masks[..., None])).softmax(dim=1).numpy()
        for k in range(2):
            expected = np.einsum("m,mhw->hw", probabilities[:, TARGETS[i, k]], masks) / (count * 0.4)
            assert reference.relative_error(maps[i, k], expected) < 1e-10
    alone = jax.jit(lambda m, x, t: rise(m, x, t, key=key, **options | {"batch_size": 4}))(
        ours(theirs), images[:1], TARGETS[:1, 1]
    )
    np.testing.assert_allclose(alone, maps[:1, 1], rtol=1e-10)


def test_rise_rejects_wrong_options(theirs):
    with pytest.raises(InputError, match="keep is in"):
        rise(ours(theirs), reference.images(3, 2, *SIZE), TARGETS, keep=1.0)
    with pytest.raises(InputError, match="no class 1"):
        rise(ours(theirs), reference.images(3, 2, *SIZE), TARGETS + 8)
