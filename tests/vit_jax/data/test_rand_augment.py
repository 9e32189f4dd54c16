"""RandAugment's operations against Pillow's, on an image with edges, gradients and noise."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from vit_jax import InputError
from vit_jax.data.augment.rand_augment import OPERATIONS, apply_rand_augment
from vit_jax.data.augment.transforms import Augment, augment_batch

H, W = 50, 60


@pytest.fixture(scope="module")
def picture():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:H, :W]
    base = np.stack([x * 3 + 20, y * 4, (x + y) * 2], axis=-1) + rng.integers(0, 25, (H, W, 3))
    base[10:30, 15:40] = (200, 40, 90)
    return Image.fromarray(base.clip(15, 240).astype(np.uint8))


def affine(picture, *numbers):
    return picture.transform(picture.size, Image.Transform.AFFINE, numbers, Image.Resampling.NEAREST)


PILLOW = {
    "identity": lambda p, m: p,
    "shear_x": lambda p, m: affine(p, 1, m, 0, 0, 1, 0),
    "shear_y": lambda p, m: affine(p, 1, 0, 0, m, 1, 0),
    "translate_x": lambda p, m: affine(p, 1, 0, -int(m), 0, 1, 0),
    "translate_y": lambda p, m: affine(p, 1, 0, 0, 0, 1, -int(m)),
    "rotate": lambda p, m: p.rotate(m, Image.Resampling.NEAREST),
    "brightness": lambda p, m: ImageEnhance.Brightness(p).enhance(m),
    "color": lambda p, m: ImageEnhance.Color(p).enhance(m),
    "contrast": lambda p, m: ImageEnhance.Contrast(p).enhance(m),
    "sharpness": lambda p, m: ImageEnhance.Sharpness(p).enhance(m),
    "posterize": lambda p, m: ImageOps.posterize(p, int(m)),
    "solarize": lambda p, m: ImageOps.solarize(p, m),
    "autocontrast": lambda p, m: ImageOps.autocontrast(p),
    "equalize": lambda p, m: ImageOps.equalize(p),
}
ONE_LEVEL = ("autocontrast", "color", "contrast", "sharpness")  # see the module


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_equal_pillow(name, picture):
    operation, amounts = OPERATIONS[name]
    compiled = jax.jit(operation)
    other = Image.fromarray(np.random.default_rng(1).integers(0, 256, (H, W, 3)).astype(np.uint8))
    dim = Image.fromarray(np.asarray(other) // 6)
    for number, original in enumerate((picture, other, dim)):
        image = jnp.asarray(np.asarray(original), jnp.float32)
        for magnitude in (0, 4, 9, 17, 30):
            for amount in amounts(magnitude, H, W):
                ours = np.asarray(compiled(image, jnp.asarray(amount, jnp.float32)))
                theirs = np.asarray(PILLOW[name](original, amount)).astype(np.float32)
                differs = np.abs(ours - theirs)
                if name == "rotate":
                    assert (differs > 0).mean() < 0.001, (number, amount)  # of pixels, at coordinates between two
                elif name in ONE_LEVEL:
                    assert differs.max() <= 1, (number, amount)
                    assert (differs > 0).mean() < 0.03, (number, amount)
                else:
                    assert differs.max() == 0, (number, amount)


def test_amounts_equal_torchvision():
    """Compare with torchvision's table at a few bins, for images of 331 pixels a side."""
    both = {name: [amounts(i, 331, 331) for i in (0, 9, 30)] for name, (_, amounts) in OPERATIONS.items()}
    at = {name: [first for first, *_ in amounts] for name, amounts in both.items()}
    assert both["shear_x"][1] == pytest.approx((0.09, -0.09))
    assert both["color"][1] == pytest.approx((1.27, 0.73))
    assert at["shear_x"] == pytest.approx([0, 0.09, 0.3])
    assert at["translate_y"] == pytest.approx([0, 45, 150])
    assert at["rotate"] == pytest.approx([0, 9, 30])
    assert at["contrast"] == pytest.approx([1, 1.27, 1.9])
    assert at["posterize"] == [8, 7, 4]
    assert at["solarize"] == pytest.approx([255, 178.5, 0])
    assert math.isclose(OPERATIONS["posterize"][1](12, 9, 9)[0], 6)
    assert list(OPERATIONS) == list(PILLOW)


def test_every_operation_is_equally_likely(picture):
    image = jnp.asarray(np.asarray(picture.resize((30, 25))), jnp.float32) / 255
    augmented = jax.jit(jax.vmap(lambda key: apply_rand_augment(key, image, 1, 15)))(
        jax.random.split(jax.random.key(0), 2000)
    )
    assert 0 <= float(augmented.min()) <= float(augmented.max()) <= 1
    _, counts = np.unique(np.asarray(augmented).reshape(2000, -1), axis=0, return_counts=True)
    kinds = sum(len(amounts(15, 25, 30)) for _, amounts in OPERATIONS.values())
    assert len(counts) == kinds  # with either sign
    one, half = 2000 / 14, 2000 / 28  # an operation with one amount, and with two
    assert all(abs(c - one) < 50 or abs(c - half) < 35 for c in counts)


def test_rand_augment_is_part_of_augment(picture):
    images = jnp.asarray(np.asarray(picture))[None].repeat(3, axis=0)
    plain, more = Augment(flip=0.5), Augment(flip=0.5, rand_ops=2, rand_magnitude=9)
    results = [
        np.asarray(jax.jit(lambda k, s=s: augment_batch(k, images, s))(jax.random.key(4))) for s in (plain, more)
    ]
    assert not np.array_equal(results[0], results[1])
    assert not np.array_equal(results[1][0], results[1][1])
    with pytest.raises(InputError, match=r"rand_magnitude is a whole number in \[0, 30\], not 31"):
        Augment(rand_ops=1, rand_magnitude=31)
