"""Preprocessing against torchvision's output and on unusual shapes."""

import numpy as np
import pytest
from PIL import Image

import tests.reference as reference
from vit_jax import ImagePreprocess, InputError, Preprocess


def test_squash_is_torchvisions_resize_on_pil():
    golden = reference.golden_arrays("transforms")
    resized = ImagePreprocess((64, 64)).resize(Image.fromarray(golden["image"]))
    np.testing.assert_array_equal(resized, golden["resize64_pil"])


def test_normalize_is_torchvisions():
    golden = reference.golden_arrays("transforms")
    ours = ImagePreprocess((64, 64))(Image.fromarray(golden["resize64_pil"]))
    np.testing.assert_allclose(ours, golden["normalize_tensor"], atol=1e-6)


@pytest.mark.parametrize("crop", [0.875, 1.0])
@pytest.mark.parametrize("shape", [(40, 90), (90, 40), (10, 10), (7, 300)])
def test_crop_keeps_the_centre_at_any_aspect_ratio(crop, shape):
    height, width = shape
    ramp = np.tile(np.linspace(0, 255, width).astype(np.uint8)[None, :, None], (height, 1, 3))
    out = ImagePreprocess((32, 48), Preprocess(crop=crop)).resize(Image.fromarray(ramp))
    assert out.shape == (32, 48, 3)
    middle = out[16, 23:25].mean()
    assert abs(middle - 127.5) < 6, "the centre stays the centre"


def test_arrays_and_grey_pictures():
    preprocess = ImagePreprocess((8, 8), Preprocess(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)))
    grey = Image.fromarray(np.full((8, 8), 51, np.uint8))
    np.testing.assert_allclose(preprocess(grey), 0.2, atol=1e-6)
    np.testing.assert_allclose(preprocess(np.full((8, 8, 3), 51, np.uint8)), 0.2, atol=1e-6)


def test_wrong_requests():
    with pytest.raises(InputError, match="uint8"):
        ImagePreprocess((8, 8))(np.zeros((8, 8, 3)))
    with pytest.raises(InputError, match="not an image: str"):
        ImagePreprocess((8, 8))("cat.jpg")
    with pytest.raises(InputError, match="unknown resize kernel"):
        Preprocess(kernel="area")
    with pytest.raises(InputError, match="fraction"):
        Preprocess(crop=1.5)
    with pytest.raises(InputError, match="std above 0"):
        Preprocess(std=(0.5, 0.5, 0.0))
