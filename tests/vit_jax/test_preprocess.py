"""Preprocessing against torchvision's output, timm's arithmetic and live timm, and on unusual shapes."""

import math

import numpy as np
import pytest
from PIL import Image

import tests.reference as reference
from tests import live_timm
from tests.pictures import SIZES, noise
from vit_jax import ImagePreprocess, InputError, Preprocess
from vit_jax.preprocess import KERNELS
from vit_jax.settings import read_settings


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


def timm_arithmetic(image, size, crop_pct, squash):
    """Return the pixels of timm's evaluation transform: timm.data.transforms_factory and torchvision's functional.py."""
    height, width = (math.floor(side / crop_pct) for side in size)
    if squash:
        new_width, new_height = width, height
    elif height == width:  # transforms.Resize(int)
        short, long = sorted(image.size)
        new_long = int(height * long / short)
        new_width, new_height = (height, new_long) if image.width <= image.height else (new_long, height)
    else:  # ResizeKeepRatio
        ratio = min(image.height / height, image.width / width)
        new_width, new_height = round(image.width / ratio), round(image.height / ratio)
    resized = image.resize((new_width, new_height), Image.Resampling.BICUBIC)
    top, left = round((new_height - size[0]) / 2.0), round((new_width - size[1]) / 2.0)
    return np.asarray(resized)[top : top + size[0], left : left + size[1]]


TIMM_CASES = [
    *[((224, 224), crop_pct, False) for crop_pct in (0.9, 0.875, 1.0, 0.95)],
    ((37, 37), 0.9, False),
    ((224, 224), 0.9, True),
    ((48, 112), 0.875, False),
    ((112, 48), 0.95, True),
]


@pytest.mark.parametrize(("size", "crop_pct", "squash"), TIMM_CASES)
def test_pixels_equal_timms(size, crop_pct, squash):
    preprocess = ImagePreprocess(size, Preprocess(kernel="bicubic", crop=crop_pct, squash=squash))
    for picture in map(noise, SIZES):
        np.testing.assert_array_equal(preprocess.resize(picture), timm_arithmetic(picture, size, crop_pct, squash))


@pytest.mark.parametrize(("size", "crop_pct", "squash"), TIMM_CASES)
def test_pixels_equal_live_timms(size, crop_pct, squash):
    live_timm.load()
    from timm.data import create_transform

    transform = create_transform(
        (3, *size),
        interpolation="bicubic",
        crop_pct=crop_pct,
        crop_mode="squash" if squash else "center",
        normalize=False,
    )
    preprocess = ImagePreprocess(size, Preprocess(kernel="bicubic", crop=crop_pct, squash=squash))
    for picture in map(noise, SIZES):
        expected = transform(picture).numpy().transpose(1, 2, 0)
        np.testing.assert_array_equal(preprocess.resize(picture), expected)


def test_an_odd_margin_is_halved_as_the_convention_says():
    # Columns 0 to 6 of a ramp, of which the central 4 begin at 1.5.
    ramp = Image.fromarray(np.tile(np.arange(7, dtype=np.uint8)[None, :, None], (4, 1, 3)))
    for centre, first in (("round", 2), ("floor", 1)):
        out = ImagePreprocess((4, 4), Preprocess(kernel="nearest", crop=1.0, centre=centre)).resize(ramp)
        np.testing.assert_array_equal(out[0, :, 0], np.arange(first, first + 4))


@pytest.mark.parametrize("squash", [False, True])
@pytest.mark.parametrize("centre", ["round", "floor"])
def test_the_view_is_what_the_model_sees(squash, centre):
    for width, height in ((90, 61), (60, 91), (7, 200)):
        y, x = np.mgrid[:height, :width]
        ramp = np.stack([255 * x / width, 255 * y / height, 0 * x], axis=-1).astype(np.uint8)
        preprocess = ImagePreprocess((32, 32), Preprocess(crop=0.8, squash=squash, centre=centre))
        view = preprocess.view(Image.fromarray(ramp))
        seen = np.asarray(view.resize((32, 32), Image.Resampling.BILINEAR), float)
        pixel = 255 / min(width, height)  # the view's edges are whole pixels of the picture
        assert np.abs(seen - preprocess.resize(Image.fromarray(ramp))).max() <= 1.5 * pixel
        ratio = width / height if squash else 1
        assert abs(view.width / view.height - ratio) <= 0.2 * ratio


def test_the_view_of_a_tiny_picture_is_at_least_a_pixel():
    assert ImagePreprocess((8, 8), Preprocess(crop=0.1)).view(noise((2, 1))).size == (1, 1)


def test_every_kernel_is_pillows():
    for name, kernel in KERNELS.items():
        resized = ImagePreprocess((9, 11), Preprocess(kernel=name)).resize(noise((30, 20)))
        np.testing.assert_array_equal(resized, np.asarray(noise((30, 20)).resize((11, 9), kernel)))


def test_settings_saved_without_the_newer_fields_are_read():
    stored = {"mean": [0.5], "std": [0.5], "kernel": "bicubic", "crop": 0.9}
    assert read_settings(Preprocess, stored) == Preprocess((0.5,), (0.5,), "bicubic", 0.9, squash=False, centre="round")


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
    with pytest.raises(InputError, match="unknown centre 'middle': one of round, floor"):
        Preprocess(centre="middle")
    with pytest.raises(InputError, match="fraction"):
        Preprocess(crop=1.5)
    with pytest.raises(InputError, match="std above 0"):
        Preprocess(std=(0.5, 0.5, 0.0))
