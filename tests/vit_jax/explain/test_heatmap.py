"""Grids, upsampling against torch, overlays; position similarity against its formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib import colormaps

from tests.create import create
from tests.optional import torch
from vit_jax import (
    InputError,
    VisionTransformer,
    ViTConfig,
    overlay,
    position_similarity,
    to_grid,
    upsample,
    with_image_size,
)
from vit_jax.explain import uninformative_reason
from vit_jax.explain.heatmap import COLORMAP, scale_to_unit_range


@pytest.mark.parametrize(("shape", "size"), [((2, 3, 4, 5), (32, 30)), ((1, 1, 7, 3), (7, 3)), ((2, 1, 2, 2), (5, 9))])
def test_upsample_agrees_with_torch(shape, size):
    maps = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    expected = torch.nn.functional.interpolate(torch.from_numpy(maps), size, mode="bilinear", align_corners=False)
    np.testing.assert_allclose(jax.jit(lambda m: upsample(m, size))(maps), expected.numpy(), atol=1e-6)
    np.testing.assert_allclose(upsample(maps[0, 0], size), expected[0, 0].numpy(), atol=1e-6)


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.bool_])
def test_maps_of_integers_are_upsampled_as_floats(dtype):
    maps = np.eye(3).astype(dtype)
    np.testing.assert_array_equal(upsample(maps, (7, 7)), upsample(maps.astype(np.float32), (7, 7)))


def test_to_grid():
    maps = jnp.arange(24.0).reshape(2, 12)
    assert to_grid(maps, (3, 4)).shape == (2, 3, 4)
    assert float(to_grid(maps, (3, 4))[1, 2, 0]) == 20
    with pytest.raises(InputError, match="does not fit a 5x3 grid"):
        to_grid(maps, (5, 3))
    with pytest.raises(InputError, match="cannot upsample"):
        upsample(jnp.zeros(4), (2, 2))


def test_overlay():
    image, heat = np.full((2, 2, 3), 0.5, np.float32), np.array([[0.0, 1.0], [2.0, 4.0]], np.float32)
    shown = np.asarray(jax.jit(overlay)(image, heat))
    colours = colormaps[COLORMAP](np.array([[0, 64], [128, 255]]))[..., :3]
    np.testing.assert_allclose(shown, 0.25 + 0.5 * colours, atol=1e-6)
    np.testing.assert_allclose(overlay(image, heat, alpha=0.0), image)
    batch = jax.vmap(overlay)(jnp.stack([image, image]), jnp.stack([heat, 3 * heat + 1]))
    np.testing.assert_allclose(batch[1], shown, atol=1e-6)
    assert not np.asarray(scale_to_unit_range(np.full((3, 3), 7.0))).any()
    with pytest.raises(InputError, match="does not fit an image"):
        overlay(image, heat[:1])
    with pytest.raises(InputError, match="alpha must be in"):
        overlay(image, heat, alpha=1.5)


@pytest.mark.parametrize("has_class", [True, False])
def test_position_similarity(has_class):
    config = ViTConfig(
        image_size=(24, 16), patch_size=(8, 8), width=16, depth=1, num_heads=2, mlp_dim=24, num_classes=3, num_registers=2,
        class_token=has_class, pooling="cls" if has_class else "gap",
    )  # fmt: skip
    model = create(VisionTransformer, config)
    similarity = np.asarray(jax.jit(position_similarity)(model))
    assert similarity.shape == (3, 2, 3, 2)
    table = np.asarray(model.position_embedding[...])[0, int(has_class) :]
    for i in range(6):
        for j in range(6):
            cosine = table[i] @ table[j] / np.linalg.norm(table[i]) / np.linalg.norm(table[j])
            assert similarity[i // 2, i % 2, j // 2, j % 2] == pytest.approx(cosine, abs=1e-5)
    larger = np.asarray(position_similarity(with_image_size(model, (40, 32))))
    assert larger.shape == (5, 4, 5, 4)
    np.testing.assert_allclose(
        larger[0, 0, -1, -1], similarity[0, 0, -1, -1], atol=1e-5
    )  # zoom resizing keeps the corners


@pytest.mark.parametrize(
    ("heat", "reason"),
    [
        ([[0.0, 0.0]], "all zero"),
        ([[0.3, 0.3], [0.3, 0.3]], "constant"),
        ([[1 / 3, np.nextafter(np.float32(1 / 3), np.float32(1))]], "constant"),  # rounding
        ([[-2.0, -2.0]], "constant"),
        ([[0.0, np.nan]], "not finite"),
        ([[1.0, np.inf]], "not finite"),
        ([[0.0, 1e-30]], ""),  # its scale does not matter
        ([[1.0, 1.0 + 1e-5]], ""),
    ],
)
def test_maps_without_information(heat, reason):
    assert uninformative_reason(np.array(heat, np.float32)) == reason
