"""A captioner's training transform: its parts against torchvision's results; the generator alone decides the rest."""

import numpy as np
import pytest
from PIL import Image

import tests.reference as reference
from caption.data.augment import CaptionAugment, augment_image, enhance, jitter, turn
from caption.preprocess import CaptionPreprocess
from vit_jax import InputError

STILL = CaptionAugment(angles=(0,), brightness=(1.0, 1.0), contrast=(1.0, 1.0), saturation=(1.0, 1.0), flip=0.0)


@pytest.fixture(scope="module")
def golden():
    return reference.golden_arrays("transforms")


@pytest.fixture(scope="module")
def image(golden):
    return Image.fromarray(golden["image"])


@pytest.mark.parametrize(
    "name", ["brightness_0.5", "brightness_1.3", "contrast_0.6", "contrast_1.5", "saturation_0.5", "saturation_1.4"]
)
def test_colours_are_torchvisions_on_pil(golden, image, name):
    quality, factor = name.split("_")
    np.testing.assert_array_equal(enhance(image, quality, float(factor)), golden[f"{name}_pil"])


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_rotations_are_counter_clockwise_and_complete(image, degrees):
    np.testing.assert_array_equal(turn(image, degrees), np.rot90(image, degrees // 90))
    np.testing.assert_array_equal(turn(image, degrees), image.rotate(degrees, expand=True))  # what torchvision calls


def test_without_augmentation_it_is_the_validation_transform(image):
    preprocess = CaptionPreprocess()
    ours = augment_image(image, preprocess, STILL, np.random.default_rng(0))
    np.testing.assert_array_equal(ours, preprocess(image))
    grey = image.convert("L")
    np.testing.assert_array_equal(augment_image(grey, preprocess, STILL, np.random.default_rng(0)), preprocess(grey))


def test_the_generator_alone_decides_the_result(image):
    preprocess = CaptionPreprocess(longest=40)
    first, again, other = (
        augment_image(image, preprocess, CaptionAugment(), np.random.default_rng(s)) for s in (5, 5, 6)
    )
    np.testing.assert_array_equal(first, again)
    assert first.shape != other.shape or (first != other).any()
    assert first.dtype == np.float32
    assert -1 <= first.min() <= first.max() <= 1


def test_rotations_and_flips_have_their_probabilities(image):
    preprocess = CaptionPreprocess(longest=12)
    settings = CaptionAugment(brightness=(1.0, 1.0), contrast=(1.0, 1.0), saturation=(1.0, 1.0))
    kinds = [preprocess(x) for d in (0, 90, 180, 270) for x in (turn(image, d),)]
    kinds += [kind[:, ::-1] for kind in kinds]
    counts = np.zeros(8, int)
    rng = np.random.default_rng(0)
    for _ in range(800):
        result = augment_image(image, preprocess, settings, rng)
        errors = [np.abs(result - kind).max() if kind.shape == result.shape else np.inf for kind in kinds]
        assert min(errors) == 0
        counts[np.argmin(errors)] += 1
    assert 65 < counts.min() <= counts.max() < 135  # 100 each, 3.7 standard deviations


def test_factors_stay_in_their_ranges():
    rng = np.random.default_rng(0)
    white = Image.new("RGB", (2, 2), (200, 200, 200))
    settings = CaptionAugment(contrast=(1.0, 1.0), saturation=(1.0, 1.0))
    levels = [jitter(white, settings, rng).getpixel((0, 0))[0] for _ in range(200)]
    assert 100 <= min(levels) < 110
    assert 245 < max(levels) <= 255


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"angles": (45,)}, "angles are some of 0, 90, 180 and 270 degrees"),
        ({"angles": ()}, "angles are some of"),
        ({"contrast": (1.5, 0.5)}, r"contrast is \(minimum, maximum\), not \(1\.5, 0\.5\)"),
        ({"brightness": (-1.0, 1.0)}, "brightness is"),
        ({"flip": 2.0}, r"flip is a number in \[0, 1\], not 2\.0"),
    ],
)
def test_invalid_settings_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        CaptionAugment(**settings)
