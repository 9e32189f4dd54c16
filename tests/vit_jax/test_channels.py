"""Pictures of 1 to N channels: decoding, conversion, resizing, normalising, augmenting; adapted patch kernels."""

import sys
import types
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from caption import CaptionConfig
from tests.create import create
from tests.optional import load as load_optional
from tests.optional import torch
from vit_jax import (
    ImagePreprocess,
    InputError,
    Preprocess,
    VisionTransformer,
    ViTConfig,
    load,
    save,
    with_in_channels,
)
from vit_jax.background import compose
from vit_jax.channels import as_picture, shown, to_channels, to_rgb
from vit_jax.data import CorruptImageError, image_files, open_digits, open_picture
from vit_jax.data.augment import transforms
from vit_jax.data.augment.rand_augment import OPERATIONS
from vit_jax.data.augment.transforms import Augment, augment_batch
from vit_jax.data.dataset import Split
from vit_jax.data.loader import CachedImages, ordered_batches

RNG = np.random.default_rng(0)
CONFIG = ViTConfig(image_size=(8, 12), patch_size=(4, 4), width=16, depth=1, num_heads=2, mlp_dim=8, num_classes=3)
IMAGENET = Preprocess(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def noise(*shape):
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def preprocess(channels, size=(8, 12), **settings):
    return ImagePreprocess(size, Preprocess(**settings).for_channels(channels))


def assert_same(picture, expected):
    assert picture.mode == expected.mode
    np.testing.assert_array_equal(picture, expected)


STORED = {
    "L": Image.fromarray(noise(9, 7)),
    "RGB": Image.fromarray(noise(9, 7, 3)),
    "RGBA": Image.fromarray(noise(9, 7, 4)),
    "CMYK": Image.frombytes("CMYK", (7, 9), noise(9, 7, 4).tobytes()),
}


@pytest.mark.parametrize("mode", STORED)
def test_a_file_keeps_its_channels_or_has_the_models(mode, tmp_path):
    path, stored = tmp_path / "x.tif", STORED[mode]
    stored.save(path)
    assert_same(open_picture(path), stored)
    assert_same(open_picture(path, 1), compose(stored).convert("L"))
    assert_same(open_picture(path, 3), compose(stored).convert("RGB"))
    if mode in ("RGBA", "CMYK"):
        assert_same(open_picture(path, 4), stored)
    else:
        with pytest.raises(
            InputError, match=rf"x.tif: has {len(mode)} channels \({mode}\), and the model takes 4; give pictures of"
        ):
            open_picture(path, 4)
    with pytest.raises(InputError, match=rf"x.tif: has . channels \({mode}\), .* takes 5; give .npy arrays, uint8"):
        open_picture(path, 5)


def test_grey_through_rgb_is_exact():
    """The luma weights sum to 1 in fixed point, so data sets that stored grey as RGB lose nothing."""
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    assert ramp.convert("RGB").convert("L") == ramp


def test_arrays_of_bands(tmp_path):
    bands = noise(9, 7, 5)
    np.save(tmp_path / "five.npy", bands)
    np.testing.assert_array_equal(open_picture(tmp_path / "five.npy", 5), bands)
    for channels in (1, 3, 4, 6):
        with pytest.raises(InputError, match=rf"five.npy: has 5 channels, and the model takes {channels}; give"):
            open_picture(tmp_path / "five.npy", channels)
    for name, array in {"two": bands[..., 0], "three": bands[..., :1]}.items():
        np.save(tmp_path / f"{name}.npy", array)
        assert_same(open_picture(tmp_path / f"{name}.npy", 1), Image.fromarray(bands[..., 0]))
    np.save(tmp_path / "rgb.npy", bands[..., :3])
    assert_same(open_picture(tmp_path / "rgb.npy"), Image.fromarray(bands[..., :3]))


def test_other_arrays_are_refused_by_name(tmp_path):
    for name, array in {"float": np.zeros((4, 4, 5)), "flat": noise(4), "empty": noise(0, 4, 5)}.items():
        np.save(tmp_path / f"{name}.npy", array)
        with pytest.raises(InputError, match=rf"{name}.npy: an image array is uint8 \[height, width, channels\], not"):
            open_picture(tmp_path / f"{name}.npy")
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    np.save(tmp_path / "cut.npy", noise(9, 7, 5))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "cut.npy").read_bytes()[:-1])
    (tmp_path / "text.npy").write_text("no array")
    for name in ("objects", "cut", "text"):
        with pytest.raises(CorruptImageError, match=f"{name}.npy: not a readable array"):
            open_picture(tmp_path / f"{name}.npy")
    with pytest.raises(InputError, match=r"gone.npy: no such file"):
        open_picture(tmp_path / "gone.npy")


def test_a_folder_without_pictures_has_arrays(tmp_path):
    for name in ("b.npy", "sub/a.NPY"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        with open(tmp_path / name, "wb") as file:
            np.save(file, noise(2, 2, 5))
    assert [path.name for path in image_files(tmp_path)] == ["b.npy", "a.NPY"]
    Image.new("RGB", (2, 2)).save(tmp_path / "c.png")
    assert [path.name for path in image_files(tmp_path)] == ["c.png"]


@pytest.mark.parametrize("settings", [{}, dict(crop=0.8, kernel="bicubic")], ids=str)
def test_every_band_is_resized_on_its_own(settings):
    bands = noise(40, 30, 5)
    grey = preprocess(1, **settings)
    expected = np.concatenate([grey.resize(Image.fromarray(bands[..., i])) for i in range(5)], axis=-1)
    np.testing.assert_array_equal(preprocess(5, **settings).resize(bands), expected)
    np.testing.assert_array_equal(preprocess(3, **settings).resize(Image.fromarray(bands[..., :3])), expected[..., :3])
    alpha = Image.fromarray(bands[..., :4])  # Pillow would multiply the colours by alpha
    np.testing.assert_array_equal(preprocess(4, **settings).resize(alpha), expected[..., :4])
    assert grey.resize(Image.fromarray(bands[..., 0])).shape == (8, 12, 1)


def test_the_input_of_a_picture():
    picture = noise(8, 12, 2)
    mean, std = (0.1, 0.6), (0.5, 0.2)
    prepared = preprocess(2, mean=mean, std=std)(picture)
    np.testing.assert_allclose(prepared, (picture / 255 - mean) / std, atol=1e-6)
    grey = preprocess(1)(picture[..., 0])
    np.testing.assert_allclose(grey, picture[..., :1] / 127.5 - 1, atol=1e-6)
    with pytest.raises(InputError, match="the image: has 2 channels, and the model takes 3"):
        preprocess(3)(picture)


def test_figures_show_grey_as_grey_and_the_first_bands():
    bands = noise(9, 7, 5)
    for picture, expected, text in [
        (bands, bands[..., :3], ", bands 1-3 of 5"),
        (bands[..., :2], np.repeat(bands[..., :1], 3, axis=-1), ", band 1 of 2"),
        (as_picture(bands[..., 0]), np.repeat(bands[..., :1], 3, axis=-1), ""),
        (Image.fromarray(bands[..., :4]), bands[..., :3], " without alpha"),
    ]:
        np.testing.assert_array_equal(to_rgb(picture), expected)
        assert shown(picture) == text


def test_a_config_has_a_mean_for_every_channel():
    assert replace(CONFIG, in_channels=1).preprocess == Preprocess(mean=(0.5,), std=(0.5,))
    one = Preprocess(mean=(0.2,), std=(0.3,))
    assert replace(CONFIG, preprocess=one).preprocess == Preprocess(mean=(0.2,) * 3, std=(0.3,) * 3)
    assert replace(CONFIG, in_channels=5, preprocess=one).preprocess.channels == 5
    with pytest.raises(InputError, match=r"mean \(0.485, 0.456, 0.406\) .* the model takes 1 channels; give one value"):
        replace(CONFIG, in_channels=1, preprocess=IMAGENET)
    model = create(VisionTransformer, replace(CONFIG, in_channels=2))
    assert model(jnp.zeros((1, 8, 12, 2))).shape == (1, 3)
    with pytest.raises(InputError, match="3 channels in their last axis, not 2"):
        model(jnp.zeros((1, 8, 12, 3)))


def test_images_have_the_models_channels_or_are_named(tmp_path):
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    STORED["L"].save(files[0])
    STORED["RGBA"].save(files[1])
    images = CachedImages(Split.from_files(files), preprocess(1), budget=10**6)
    (batch,) = ordered_batches(images, 3)
    assert batch.images.shape == (3, 8, 12, 1)
    np.testing.assert_array_equal(batch.images[1], images.preprocess.resize(compose(STORED["RGBA"]).convert("L")))
    assert images.cache.free_bytes == 10**6 - 2 * 8 * 12
    four = CachedImages(Split.from_files(files), preprocess(4), budget=0)
    assert four[1][0].shape == (8, 12, 4)
    with pytest.raises(InputError, match=r"a.png: has 1 channels \(L\), and the model takes 4"):
        list(ordered_batches(four, 2))


def test_digits_are_grey():
    split = open_digits().train
    picture = split.open(0)
    grey, rgb = (CachedImages(split, preprocess(n, (8, 8)), budget=0)[0][0] for n in (1, 3))
    np.testing.assert_array_equal(grey[..., 0], picture)
    np.testing.assert_array_equal(rgb, np.repeat(grey, 3, axis=-1))


@pytest.mark.parametrize("name", OPERATIONS)
def test_rand_augment_of_grey_is_that_of_its_rgb_copy(name):
    grey = jnp.asarray(noise(20, 24, 1), jnp.float32)
    operation, amounts = OPERATIONS[name]
    for amount in amounts(17, 20, 24):
        rgb = operation(jnp.repeat(grey, 3, axis=-1), jnp.float32(amount))
        ours = operation(grey, jnp.float32(amount))
        np.testing.assert_allclose(ours, rgb[..., :1], atol=1 if name in ("contrast", "sharpness", "color") else 0)
        assert ours.shape == grey.shape


def test_colour_jitter_of_grey():
    """As torchvision for one channel: contrast about the image's mean; saturation and hue change nothing."""
    grey = jnp.asarray(RNG.uniform(size=(6, 5, 1)), jnp.float32)
    expected = np.clip(1.5 * np.asarray(grey) - 0.5 * np.asarray(grey).mean(), 0, 1)
    np.testing.assert_allclose(transforms.adjust_contrast(grey, 1.5), expected, atol=1e-6)
    np.testing.assert_allclose(transforms.adjust_brightness(grey, 0.5), grey / 2, atol=1e-7)
    assert transforms.adjust_saturation(grey, 0.2) is grey
    assert transforms.adjust_hue(grey, 0.2) is grey


def test_augmentations_of_any_number_of_channels():
    images = jnp.asarray(noise(2, 8, 12, 5))
    settings = Augment(crop_scale=(0.5, 1.0), degrees=20.0, flip=0.5, brightness=0.3)
    augment = jax.jit(augment_batch, static_argnums=2)
    out = augment(jax.random.key(0), images, settings)
    last = augment(jax.random.key(0), images[..., 4:], settings)
    np.testing.assert_allclose(out[..., 4:], last, atol=1e-6)
    everything = replace(settings, contrast=0.1, saturation=0.1, hue=0.1, rand_ops=2)
    assert augment.eval_shape(jax.random.key(0), images[..., :1], everything).shape == (2, 8, 12, 1)
    with pytest.raises(
        InputError, match="--contrast, --rand-ops: undefined for images of 5 channels; give --contrast 0 --rand-ops 0"
    ):
        augment_batch(jax.random.key(0), images, replace(settings, contrast=0.1, rand_ops=1))


@pytest.mark.parametrize("channels", [1, 2, 4, 5, 7])
def test_adapted_kernels_are_timms(channels, monkeypatch):
    # torchvision's wheel registers an operator there that a CPU build of torch lacks; timm does not need it.
    stub = types.ModuleType("torchvision._meta_registrations")
    monkeypatch.setitem(sys.modules, "torchvision._meta_registrations", stub)
    model = create(VisionTransformer, CONFIG)
    adapt_input_conv = load_optional("timm.models._manipulate").adapt_input_conv
    weight = torch.from_numpy(np.asarray(model.patch_embed.kernel[...]).transpose(3, 2, 0, 1).copy())
    expected = adapt_input_conv(channels, weight).numpy().transpose(2, 3, 1, 0)
    np.testing.assert_allclose(
        with_in_channels(model, channels).patch_embed.kernel[...], expected, rtol=1e-6, atol=1e-7
    )


def test_kernels_are_summed_or_repeated():
    """Every channel of the new model has the average mean and std."""
    model = create(VisionTransformer, replace(CONFIG, preprocess=IMAGENET))
    kernel = np.asarray(model.patch_embed.kernel[...], np.float64)
    for channels in (1, 2, 4, 5, 7):
        adapted = with_in_channels(model, channels)
        order = [i % 3 for i in range(channels)]
        expected = kernel.sum(2, keepdims=True) if channels == 1 else kernel[:, :, order] * 3 / channels
        np.testing.assert_allclose(adapted.patch_embed.kernel[...], expected, rtol=1e-6, atol=1e-7)
        assert adapted.config.in_channels == channels
        np.testing.assert_allclose(adapted.config.preprocess.mean, np.full(channels, np.mean(IMAGENET.mean)))
        np.testing.assert_allclose(adapted.config.preprocess.std, np.full(channels, np.mean(IMAGENET.std)))
    assert with_in_channels(model, 3) is model


def test_a_grey_image_has_the_tokens_of_its_rgb_copy():
    model = create(VisionTransformer, CONFIG)
    grey = jnp.asarray(RNG.uniform(-1, 1, (1, 8, 12, 1)), jnp.float32)
    tokens = with_in_channels(model, 1).patch_embed(grey)
    np.testing.assert_allclose(tokens, model.patch_embed(jnp.repeat(grey, 3, axis=-1)), atol=1e-5)


def test_models_that_cannot_be_adapted(tmp_path):
    grey = create(VisionTransformer, replace(CONFIG, in_channels=1))
    assert with_in_channels(grey, 1) is grey
    with pytest.raises(InputError, match="the model takes 1 channels, so it cannot be adapted to 3; only RGB"):
        with_in_channels(grey, 3)
    normed = create(VisionTransformer, replace(CONFIG, patch_norms=True))
    with pytest.raises(InputError, match="the model norms its patches' pixels, so it cannot be adapted to 1"):
        with_in_channels(normed, 1)
    save(create(VisionTransformer, CONFIG), tmp_path / "rgb")
    loaded = load(tmp_path / "rgb", in_channels=4, image_size=(8, 8), num_classes=2)
    assert (loaded.config.in_channels, loaded.config.image_size, loaded.config.num_classes) == (4, (8, 8), 2)
    with pytest.raises(InputError, match="captioners take RGB pictures, and this encoder takes 1 channels"):
        CaptionConfig(encoder=replace(CONFIG, num_classes=0, in_channels=1))


def test_conversion_keeps_what_fits():
    assert to_channels(STORED["RGB"], 3) is STORED["RGB"]
    assert to_channels(STORED["CMYK"], 4) is STORED["CMYK"]
