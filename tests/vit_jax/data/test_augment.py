"""Augmentations with fixed parameters against torchvision's results; random parameters against its distributions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tests.reference as reference
from vit_jax import InputError
from vit_jax.data.augment import transforms as module
from vit_jax.data.augment.transforms import Augment, augment_batch

GOLDEN = reference.golden_arrays("transforms")
IMAGE = jnp.asarray(GOLDEN["image"], jnp.float32) / 255
FULL = Augment(crop_scale=(0.08, 1.0), degrees=30.0, flip=0.5, brightness=0.5, contrast=0.5, saturation=0.5, hue=0.5)

CASES = {
    "resize64_tensor_antialias": lambda x: module.resized_crop(x, 0, 0, 97, 120, (64, 64)),
    "resized_crop_10_20_50_70_to64_tensor": lambda x: module.resized_crop(x, 10, 20, 50, 70, (64, 64)),
    "affine_17.3_tensor": lambda x: module.rotate(x, 17.3),
    "affine_-25_tensor": lambda x: module.rotate(x, -25.0),
    "brightness_0.5_tensor": lambda x: module.adjust_brightness(x, 0.5),
    "brightness_1.3_tensor": lambda x: module.adjust_brightness(x, 1.3),
    "contrast_0.6_tensor": lambda x: module.adjust_contrast(x, 0.6),
    "contrast_1.5_tensor": lambda x: module.adjust_contrast(x, 1.5),
    "saturation_0.5_tensor": lambda x: module.adjust_saturation(x, 0.5),
    "saturation_1.4_tensor": lambda x: module.adjust_saturation(x, 1.4),
    "hue_-0.4_tensor": lambda x: module.adjust_hue(x, -0.4),
    "hue_0.2_tensor": lambda x: module.adjust_hue(x, 0.2),
}
# Pillow rounds to 8 bits after each step, to 8-bit HSV within hue, and the rotation's coordinates to fixed point.
# Largest difference in levels, and fraction of values more than 2 away; measured: hue 12 and 0.104, rotation 24 and 5e-5.
PIL_BOUNDS = {"hue": (16, 0.12), "affine": (256, 0.002)}


@pytest.mark.parametrize("key", CASES)
def test_against_torchvisions_tensor_backend(key):
    ours = np.asarray(jax.jit(CASES[key])(IMAGE))
    # float32 in another order of operations; hue goes through a division and a modulus.
    assert np.abs(ours - GOLDEN[key]).max() < (5e-6 if "hue" in key else 1e-6)


@pytest.mark.parametrize("key", [k for k in CASES if k.replace("_tensor_antialias", "_tensor") != "affine_-25_tensor"])
def test_against_torchvisions_pil_backend(key):
    theirs = GOLDEN[key.replace("_tensor_antialias", "_tensor").replace("_tensor", "_pil")].astype(float)
    difference = np.abs(np.asarray(CASES[key](IMAGE)) * 255 - theirs)
    most, share = PIL_BOUNDS.get(key.split("_")[0], (1.1, 0))
    assert difference.max() < most
    assert (difference > 2).mean() <= share


def test_no_case_is_left_out():
    kinds = ("resize", "affine", "brightness", "contrast", "saturation", "hue")
    assert set(CASES) == {k for k in GOLDEN if "_tensor" in k and k.startswith(kinds)}


def test_the_defaults_change_nothing():
    images = jnp.asarray(np.random.RandomState(0).randint(0, 256, (3, 9, 7, 3)).astype(np.uint8))
    out = augment_batch(jax.random.key(0), images, Augment())
    np.testing.assert_allclose(out, images / 255.0, atol=1e-7)


def test_each_image_has_its_own_random_numbers_and_the_key_decides_them():
    images = jnp.repeat((IMAGE[None, :64, :64] * 255).astype(jnp.uint8), 4, axis=0)
    apply = jax.jit(lambda key: augment_batch(key, images, FULL))
    out = np.asarray(apply(jax.random.key(0)))
    assert out.shape == images.shape
    assert out.dtype == np.float32
    assert (out >= 0).all()
    assert (out <= 1).all()
    assert all(np.abs(out[0] - other).max() > 0.1 for other in out[1:])
    np.testing.assert_array_equal(out, apply(jax.random.key(0)))
    assert np.abs(out - apply(jax.random.key(1))).max() > 0.1


def boxes(height: int, width: int, count: int = 4000):
    keys = jax.random.split(jax.random.key(3), count)
    return [np.asarray(v) for v in jax.vmap(lambda k: module._draw_crop(k, FULL, height, width))(keys)]


def test_crops_follow_random_resized_crop():
    """Against torchvision's rule written out: ten draws of area and ratio, the first that fits."""
    top, left, height, width = boxes(60, 100)
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= 60).all()
    assert (left + width <= 100).all()
    rng = np.random.default_rng(0)
    expected = []
    for _ in range(4000):
        for _ in range(10):
            area = 6000 * rng.uniform(0.08, 1)
            ratio = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
            w, h = round(np.sqrt(area * ratio)), round(np.sqrt(area / ratio))
            if 0 < w <= 100 and 0 < h <= 60:
                expected.append((rng.integers(0, 60 - h + 1), rng.integers(0, 100 - w + 1), h, w))
                break
        else:
            expected.append((0, 10, 60, 80))
    for ours, theirs in zip((top, left, height, width), np.array(expected).T, strict=True):
        spread = theirs.std() / np.sqrt(4000)
        assert abs(ours.mean() - theirs.mean()) < 6 * spread
        assert abs(np.quantile(ours, 0.9) - np.quantile(theirs, 0.9)) < 3


def test_a_crop_without_a_fitting_draw_is_the_centre():
    top, left, height, width = boxes(4, 400, 50)  # no draw fits a strip
    assert set(zip(top, left, height, width, strict=True)) == {(0, 197, 4, 5)}


def test_rotation_flip_and_jitter_follow_their_distributions():
    ramp = jnp.broadcast_to(jnp.linspace(0, 1, 16)[None, :, None], (16, 16, 3))
    keys = jax.random.split(jax.random.key(0), 400)
    flipped = jax.vmap(lambda k: module.augment_one(k, ramp, Augment(flip=0.5)))(keys)
    fraction = float((flipped[:, 0, 0, 0] > 0.5).mean())
    assert abs(fraction - 0.5) < 0.1
    grey = jnp.full((8, 8, 3), 0.4)
    bright = jax.vmap(lambda k: module.augment_one(k, grey, Augment(brightness=0.5)))(keys)[:, 0, 0, 0] / 0.4
    assert 0.5 <= float(bright.min()) < 0.53
    assert 1.47 < float(bright.max()) <= 1.5
    assert abs(float(bright.mean()) - 1) < 0.05


def test_the_four_adjustments_are_applied_in_every_order():
    """Brightness clips and saturation blends, so the order affects the result."""
    image = jnp.asarray(np.random.RandomState(0).uniform(0.3, 1, (4, 4, 3)).astype(np.float32))
    orders = jax.vmap(lambda k: jax.random.permutation(jax.random.split(k, 5)[0], 4))(
        jax.random.split(jax.random.key(0), 2000)
    )
    unique, counts = np.unique(np.asarray(orders), axis=0, return_counts=True)
    assert len(unique) == 24
    assert counts.min() > 40
    key = jax.random.key(7)
    order_key, *keys = jax.random.split(key, 5)
    x = image
    factors = [jax.random.uniform(k, minval=0.5, maxval=1.5) for k in keys[:3]]
    turns = jax.random.uniform(keys[3], minval=-0.5, maxval=0.5)
    for which in np.asarray(jax.random.permutation(order_key, 4)):
        adjust = (module.adjust_brightness, module.adjust_contrast, module.adjust_saturation, module.adjust_hue)[which]
        x = adjust(x, [*factors, turns][which])
    np.testing.assert_allclose(module._jitter(key, FULL, image), x, atol=1e-5)


@pytest.mark.parametrize(
    "wrong",
    [
        dict(crop_scale=(0.5, 0.1)),
        dict(crop_scale=(0.5, 1.5)),
        dict(crop_ratio=(0.0, 1.0)),
        dict(flip=1.5),
        dict(hue=0.6),
        dict(contrast=-0.1),
        dict(degrees=200.0),
    ],
)
def test_invalid_settings_are_refused(wrong):
    with pytest.raises(InputError):
        Augment(**wrong)
