"""The reference's validation transform, bit for bit, and batches of pictures of any size."""

import numpy as np
import pytest
from PIL import Image

import tests.reference as reference
from caption.preprocess import CaptionPreprocess, pad_batch
from vit_jax import InputError

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("size", [(120, 97), (97, 120), (640, 480)])
def test_the_validation_transform_is_the_references(size):
    golden, name = reference.golden_arrays("transforms"), f"catr_{size[0]}x{size[1]}"
    image = Image.fromarray(golden["low"]).resize(size, Image.Resampling.BICUBIC)
    ours = CaptionPreprocess()(image)
    assert ours.dtype == np.float32
    assert CaptionPreprocess().target_size(*size) == tuple(golden[f"{name}_size"]) == ours.shape[1::-1]
    np.testing.assert_array_equal(ours.transpose(2, 0, 1)[:, ::9, ::9], golden[f"{name}_strided"])


def test_some_sizes_are_one_pixel_short():
    """In float64 (299 / max) * max may fall below 299, and the reference truncates it."""
    sides = [side for side in range(1, 3000) if max(CaptionPreprocess().target_size(side, side)) != 299]
    assert sides
    assert {max(CaptionPreprocess().target_size(side, 1 + side // 2)) for side in sides} == {298}
    for side in sides:
        assert np.float64(side) * (299 / np.float64(side)) < 299


def test_arrays_grey_pictures_and_other_configs():
    array = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    same = CaptionPreprocess(longest=30)
    np.testing.assert_array_equal(same(array), (array / np.float32(255) - np.float32(0.5)) / np.float32(0.5))
    np.testing.assert_array_equal(same(array), same(Image.fromarray(array)))
    plain = CaptionPreprocess(longest=64, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    assert plain(Image.new("L", (10, 5), 255)).shape == (32, 64, 3)
    np.testing.assert_array_equal(plain(Image.new("LA", (9, 9), (255, 3))), np.ones((64, 64, 3), np.float32))


def test_batches_are_padded_to_one_size():
    wide, tall = (CaptionPreprocess(longest=40)(np.zeros(shape, np.uint8)) for shape in ((60, 80, 3), (80, 40, 3)))
    batch = pad_batch([wide, tall])
    assert batch.images.shape == (2, 40, 40, 3)
    assert batch.mask.sum(axis=(1, 2)).tolist() == [30 * 40, 40 * 20]
    np.testing.assert_array_equal(batch.images, np.where(batch.mask[..., None], np.full(3, -1), 0))
    assert batch.mask[0, :30].all()
    assert batch.mask[1, :, :20].all()
    fixed = pad_batch([wide], CaptionPreprocess().size)
    assert fixed.images.shape == (1, 299, 299, 3)
    np.testing.assert_array_equal(fixed.images[0, :30, :40], wide)


def test_wrong_input_is_refused():
    preprocess = CaptionPreprocess()
    with pytest.raises(InputError, match="an image of 1000x2 is too thin"):
        preprocess(Image.new("RGB", (1000, 2)))
    with pytest.raises(InputError, match="not an image: str"):
        preprocess("cat.jpg")
    with pytest.raises(InputError, match="uint8"):
        preprocess(np.zeros((8, 8, 3)))
    with pytest.raises(InputError, match="longest side is at least 1"):
        CaptionPreprocess(longest=0)
    with pytest.raises(InputError, match="three values"):
        CaptionPreprocess(std=(0.5, 0.5, 0.0))
    with pytest.raises(InputError, match="no images"):
        pad_batch([])
    with pytest.raises(InputError, match="an image of 4x9 does not fit a batch of 8x8"):
        pad_batch([np.zeros((9, 4, 3), np.float32)], (8, 8))
