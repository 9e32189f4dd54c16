"""Each convention of resizing positions against the library it comes from."""

import jax
import numpy as np
import pytest
import scipy.ndimage

from tests.create import create
from tests.optional import torch
from vit_jax import InputError, VisionTransformer, ViTConfig, position_similarity, resize_position_embedding

GRIDS = [((4, 4), (6, 6)), ((4, 4), (3, 3)), ((14, 14), (24, 24)), ((5, 7), (9, 4)), ((3, 2), (1, 5)), ((7, 7), (7, 3))]


def table(rows: int, columns: int, prefix: int) -> np.ndarray:
    return np.random.RandomState(rows * columns).standard_normal((1, prefix + rows * columns, 6))


def torch_resize(grid: np.ndarray, new: tuple[int, int] | None = None, **options) -> np.ndarray:
    images = torch.from_numpy(grid.transpose(2, 0, 1)[None].copy())
    return torch.nn.functional.interpolate(images, size=new, **options)[0].numpy().transpose(1, 2, 0)


def dinov2_resize(grid: np.ndarray, new: tuple[int, int]) -> np.ndarray:
    """As DINOv2's interpolate_pos_encoding: by factors, not sizes."""
    factors = tuple((size + 0.1) / old for size, old in zip(new, grid.shape, strict=False))
    return torch_resize(grid, scale_factor=factors, mode="bicubic")


REFERENCES = {
    "zoom": lambda grid, new: torch_resize(grid, new, mode="bilinear", align_corners=True),
    "bilinear": lambda grid, new: torch_resize(grid, new, mode="bilinear", align_corners=False),
    "bilinear_antialias": lambda grid, new: torch_resize(
        grid, new, mode="bilinear", align_corners=False, antialias=True
    ),
    "bicubic": lambda grid, new: torch_resize(grid, new, mode="bicubic", align_corners=False),
    "bicubic_offset": dinov2_resize,
    "bicubic_antialias": lambda grid, new: torch_resize(grid, new, mode="bicubic", align_corners=False, antialias=True),
}


@pytest.mark.parametrize("prefix", [0, 1, 5])
@pytest.mark.parametrize(("old", "new"), GRIDS)
@pytest.mark.parametrize("method", REFERENCES)
def test_against_torch(method, old, new, prefix, x64):
    positions = table(*old, prefix)
    resized = resize_position_embedding(jax.numpy.asarray(positions), old, new, num_prefix=prefix, method=method)
    expected = REFERENCES[method](positions[0, prefix:].reshape(*old, -1), new)
    np.testing.assert_array_equal(resized[:, :prefix], positions[:, :prefix])
    np.testing.assert_allclose(resized[0, prefix:].reshape(*new, -1), expected, atol=1e-12)


@pytest.mark.parametrize(("old", "new"), [((14, 14), (24, 24)), ((4, 4), (3, 3)), ((7, 7), (12, 12))])
def test_zoom_against_scipy(old, new, x64):
    grid = table(*old, 0).reshape(*old, -1)
    expected = scipy.ndimage.zoom(grid, (new[0] / old[0], new[1] / old[1], 1), order=1)
    resized = resize_position_embedding(
        jax.numpy.asarray(grid.reshape(1, -1, 6)), old, new, num_prefix=0, method="zoom"
    )
    np.testing.assert_allclose(resized.reshape(*new, -1), expected, atol=1e-12)


@pytest.mark.parametrize(("old", "new"), GRIDS)
def test_antialiased_cubic_is_jax_image_resize(old, new, x64):
    grid = table(*old, 0).reshape(*old, -1)
    resized = resize_position_embedding(
        jax.numpy.asarray(grid.reshape(1, -1, 6)), old, new, num_prefix=0, method="bicubic_antialias"
    )
    expected = jax.image.resize(grid, (*new, 6), "cubic")
    np.testing.assert_allclose(resized.reshape(*new, -1), expected, atol=1e-6)


def test_the_conventions_differ_and_the_same_grid_is_untouched():
    positions = jax.numpy.asarray(table(4, 4, 1), jax.numpy.float32)
    resized = [resize_position_embedding(positions, (4, 4), (6, 3), num_prefix=1, method=m) for m in REFERENCES]
    for i, one in enumerate(resized):
        assert all(float(abs(one - other).max()) > 0.01 for other in resized[:i])
    assert resize_position_embedding(positions, (4, 4), (4, 4), num_prefix=1, method="bicubic") is positions


def test_a_model_without_a_table_has_no_similarity_of_positions():
    config = ViTConfig(image_size=(8, 8), patch_size=(4, 4), width=8, depth=1, num_heads=1, position_table=False)
    assert (config.num_positions, config.prefix_positions, config.num_tokens) == (0, 0, 5)
    with pytest.raises(InputError, match="no table of position embeddings"):
        position_similarity(create(VisionTransformer, config))


def test_wrong_requests():
    positions = jax.numpy.zeros((1, 17, 6))
    with pytest.raises(InputError, match="unknown resize method 'nearest'"):
        resize_position_embedding(positions, (4, 4), (6, 6), num_prefix=1, method="nearest")
    with pytest.raises(InputError, match="17 tokens is not 0 prefix tokens and a 4x4 grid"):
        resize_position_embedding(positions, (4, 4), (6, 6), num_prefix=0, method="zoom")
