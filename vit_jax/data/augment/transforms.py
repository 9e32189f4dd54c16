"""Augmentations on the device, jitted over a batch, with torchvision's semantics.

Images are float in [0, 1], channels last: RGB, grey (one channel), or any number of channels where an augmentation
does not need colours (see check_channels). The deterministic functions agree with torchvision 0.28's float tensor
backend. `augment_batch` draws their parameters from torchvision's distributions, in its order; the random numbers
differ. Pillow's backend also rounds to 8 bits after every step.
Source: torchvision/transforms/transforms.py and _functional_tensor.py.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from vit_jax.attention import Key
from vit_jax.data.augment.rand_augment import BINS, apply_rand_augment
from vit_jax.errors import InputError
from vit_jax.settings import check_settings, setting

RANGE = ("MIN", "MAX")
GREY = (0.2989, 0.587, 0.114)  # torchvision's weights of R, G and B


@dataclass(frozen=True)
class Augment:
    """Random augmentations of every training image, in the order of the fields. The defaults leave images unchanged.

    crop_scale, crop_ratio: RandomResizedCrop; the ratio is log-uniform.
    degrees:     RandomAffine's rotation, uniform in [-degrees, degrees], nearest, filled with black.
    brightness, contrast, saturation: ColorJitter's factor, uniform in [max(0, 1 - x), 1 + x].
    hue:         ColorJitter's shift in turns, uniform in [-hue, hue]. The four colour operations come in random order.
    rand_ops, rand_magnitude: see rand_augment.py.
    """

    crop_scale: tuple[float, float] | None = setting(
        None, "area of the crop, as a fraction of the image", interval="(0, 1]", none="no crop", metavar=RANGE
    )
    crop_ratio: tuple[float, float] = setting(
        (3 / 4, 4 / 3), "width / height of the crop", interval="(0, inf)", metavar=RANGE
    )
    degrees: float = setting(0.0, "maximum rotation to either side", interval="[0, 180]")
    flip: float = setting(0.0, "probability of a horizontal flip", interval="[0, 1]")
    brightness: float = setting(0.0, "maximum relative change of brightness", interval="[0, inf)")
    contrast: float = setting(0.0, "maximum relative change of contrast", interval="[0, inf)")
    saturation: float = setting(0.0, "maximum relative change of saturation", interval="[0, inf)")
    hue: float = setting(0.0, "maximum shift of hue, in turns", interval="[0, 0.5]")
    rand_ops: int = setting(0, "RandAugment: operations per image; 2 is common, 0 for none", interval="[0, inf)")
    rand_magnitude: int = setting(9, "RandAugment: magnitude of the operations", interval=f"[0, {BINS - 1}]")

    def __post_init__(self) -> None:
        for name in ("crop_scale", "crop_ratio"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, tuple(getattr(self, name)))
        check_settings(self)
        for name in ("crop_scale", "crop_ratio"):
            value = getattr(self, name)
            if value is not None and value[0] > value[1]:
                raise InputError(f"{name} is (minimum, maximum), not {value}")


def check_channels(settings: Augment, channels: int) -> None:
    """Raise InputError naming the augmentations that images of so many channels do not have.

    Grey images have all of them, and saturation, hue and RandAugment's color leave them as they are, as in torchvision.
    With 2, 4 or more channels contrast, saturation, hue and RandAugment are undefined.
    """
    needs_colours = ("contrast", "saturation", "hue", "rand_ops")
    undefined = [f"--{name.replace('_', '-')}" for name in needs_colours if getattr(settings, name) > 0]
    if channels not in (1, 3) and undefined:
        zeros = " ".join(f"{name} 0" for name in undefined)
        raise InputError(f"{', '.join(undefined)}: undefined for images of {channels} channels; give {zeros}")


def _resize_weights(start: Any, length: Any, old: int, new: int) -> Float[Array, "new old"]:
    """Return the weights that resize samples [start, start + length) of `old` to `new`, bilinear with antialias.

    Samples outside this range have weight 0, as if the crop were cut out first. Rows sum to 1.
    """
    scale = length / new
    reach = jnp.maximum(scale, 1.0)  # antialias: the triangle widens with the scale when shrinking
    centres = start + (jnp.arange(new) + 0.5) * scale
    samples = jnp.arange(old)
    weights = 1.0 - jnp.abs(samples[None, :] + 0.5 - centres[:, None]) / reach
    inside = (samples >= start) & (samples < start + length)
    weights = jnp.where(inside[None, :], jnp.maximum(weights, 0.0), 0.0)
    return weights / weights.sum(axis=1, keepdims=True)


def resized_crop(
    image: Float[Array, "h w c"], top: Any, left: Any, height: Any, width: Any, size: tuple[int, int]
) -> Float[Array, "H W c"]:
    """Crop a box (pixels) and resize it to `size`, bilinear with antialias."""
    rows = _resize_weights(top, height, image.shape[0], size[0]).astype(image.dtype)
    columns = _resize_weights(left, width, image.shape[1], size[1]).astype(image.dtype)
    exact = jax.lax.Precision.HIGHEST
    return jnp.einsum("Yy,yxc,Xx->YXc", rows, image, columns, precision=exact)


def rotate(image: Float[Array, "h w c"], degrees: Any) -> Float[Array, "h w c"]:
    """Rotate clockwise about the centre, as RandomAffine does; nearest neighbour, black outside the image."""
    h, w, _ = image.shape
    angle = jnp.deg2rad(degrees)
    x = jnp.arange(w) - (w - 1) / 2
    y = (jnp.arange(h) - (h - 1) / 2)[:, None]
    column = jnp.cos(angle) * x[None, :] + jnp.sin(angle) * y + (w - 1) / 2
    row = -jnp.sin(angle) * x[None, :] + jnp.cos(angle) * y + (h - 1) / 2
    column, row = jnp.round(column).astype(jnp.int32), jnp.round(row).astype(jnp.int32)  # half to even
    inside = (column >= 0) & (column < w) & (row >= 0) & (row < h)
    sampled = image[row.clip(0, h - 1), column.clip(0, w - 1)]
    return jnp.where(inside[..., None], sampled, jnp.zeros((), image.dtype))


def greyscale(image: Float[Array, "h w c"]) -> Float[Array, "h w 1"]:
    """Return the luma of an image; a grey image as it is."""
    if image.shape[-1] == 1:
        return image
    return (image * jnp.asarray(GREY, image.dtype)[None, None]).sum(axis=-1, keepdims=True)


def _blend(image: Float[Array, "h w c"], other: Float[Array, "..."], factor: Any) -> Float[Array, "h w c"]:
    return jnp.clip(factor * image + (1.0 - factor) * other, 0.0, 1.0)


def adjust_brightness(image: Float[Array, "h w c"], factor: Any) -> Float[Array, "h w c"]:
    """Blend with black: 0 is black, 1 the image."""
    return jnp.clip(image * factor, 0.0, 1.0)


def adjust_contrast(image: Float[Array, "h w c"], factor: Any) -> Float[Array, "h w c"]:
    """Blend with the mean of the grey image (the exact one; Pillow rounds it)."""
    return _blend(image, greyscale(image).mean().reshape(1, 1, 1), factor)


def adjust_saturation(image: Float[Array, "h w c"], factor: Any) -> Float[Array, "h w c"]:
    """Blend with the grey image: 0 is grey. A grey image stays as it is."""
    if image.shape[-1] == 1:
        return image
    return _blend(image, greyscale(image), factor)


def adjust_hue(image: Float[Array, "h w c"], turns: Any) -> Float[Array, "h w c"]:
    """Shift the hue by a fraction of a full turn, through HSV and back. A grey image stays as it is."""
    if image.shape[-1] == 1:
        return image
    r, g, b = image[..., 0], image[..., 1], image[..., 2]
    value, minimum = image.max(axis=-1), image.min(axis=-1)
    chroma = value - minimum
    grey = chroma == 0
    saturation = chroma / jnp.where(grey, 1.0, value)
    divisor = jnp.where(grey, 1.0, chroma)
    red, green, blue = (value - r) / divisor, (value - g) / divisor, (value - b) / divisor
    sector = jnp.where(value == r, blue - green, jnp.where(value == g, 2.0 + red - blue, 4.0 + green - red))
    hue = ((sector / 6.0 + 1.0) % 1.0 + turns) % 1.0
    # HSV to RGB in one formula: value - value * saturation * clip(triangle of the hue) per channel (Foley, van Dam).
    k = (jnp.array([5.0, 3.0, 1.0], image.dtype)[None, None] + (hue * 6.0)[..., None]) % 6.0
    ramp = jnp.clip(jnp.minimum(k, 4.0 - k), 0.0, 1.0)
    return value[..., None] * (1.0 - saturation[..., None] * ramp)


JITTERS = {"brightness": adjust_brightness, "contrast": adjust_contrast, "saturation": adjust_saturation}


def _draw_crop(key: Key, settings: Augment, h: int, w: int) -> tuple[Array, Array, Array, Array]:
    """Draw RandomResizedCrop's box (top, left, height, width): the first of ten draws that fits, else the centre."""
    assert settings.crop_scale is not None
    area_key, ratio_key, top_key, left_key = jax.random.split(key, 4)
    low, high = settings.crop_scale
    area = h * w * jax.random.uniform(area_key, (10,), minval=low, maxval=high)
    low, high = settings.crop_ratio
    ratio = jnp.exp(jax.random.uniform(ratio_key, (10,), minval=jnp.log(low), maxval=jnp.log(high)))
    widths, heights = jnp.round(jnp.sqrt(area * ratio)), jnp.round(jnp.sqrt(area / ratio))
    fits = (widths > 0) & (widths <= w) & (heights > 0) & (heights <= h)
    first = jnp.argmax(fits)
    # The fallback is the largest box of an allowed ratio.
    image_ratio = w / h
    fallback_w = w if image_ratio <= high else round(h * high)
    fallback_h = h if image_ratio >= low else round(w / low)
    width = jnp.where(fits.any(), widths[first], fallback_w)
    height = jnp.where(fits.any(), heights[first], fallback_h)
    top = jnp.floor(jax.random.uniform(top_key) * (h - height + 1)).clip(0, h - height)
    left = jnp.floor(jax.random.uniform(left_key) * (w - width + 1)).clip(0, w - width)
    top = jnp.where(fits.any(), top, (h - height) // 2)
    left = jnp.where(fits.any(), left, (w - width) // 2)
    return top, left, height, width


def _jitter(key: Key, settings: Augment, image: Float[Array, "h w c"]) -> Float[Array, "h w c"]:
    """Apply ColorJitter: the adjustments of non-zero strength, by random factors, in random order."""
    order_key, *keys = jax.random.split(key, 5)
    adjustments: list[Callable[[Any], Any]] = []
    for name, adjust, factor_key in zip(
        JITTERS, (adjust_brightness, adjust_contrast, adjust_saturation), keys, strict=False
    ):
        strength = getattr(settings, name)
        factor = jax.random.uniform(factor_key, minval=max(0.0, 1.0 - strength), maxval=1.0 + strength)
        if strength > 0:
            adjustments.append(functools.partial(adjust, factor=factor))
    if settings.hue > 0:
        turns = jax.random.uniform(keys[3], minval=-settings.hue, maxval=settings.hue)
        adjustments.append(functools.partial(adjust_hue, turns=turns))
    order = jax.random.permutation(order_key, len(adjustments))
    for position in range(len(adjustments)):
        image = jax.lax.switch(order[position], adjustments, image)
    return image


def augment_one(key: Key, image: Float[Array, "h w c"], settings: Augment) -> Float[Array, "h w c"]:
    """Augment one image with random numbers from the key. The size does not change."""
    crop_key, turn_key, flip_key, jitter_key = jax.random.split(key, 4)
    h, w, _ = image.shape
    if settings.crop_scale is not None:
        image = resized_crop(image, *_draw_crop(crop_key, settings, h, w), (h, w))
    if settings.degrees > 0:
        image = rotate(image, jax.random.uniform(turn_key, minval=-settings.degrees, maxval=settings.degrees))
    if settings.flip > 0:
        image = jnp.where(jax.random.uniform(flip_key) < settings.flip, image[:, ::-1], image)
    if max(settings.brightness, settings.contrast, settings.saturation, settings.hue) > 0:
        image = _jitter(jitter_key, settings, image)
    if settings.rand_ops > 0:
        image = apply_rand_augment(jax.random.fold_in(key, 1), image, settings.rand_ops, settings.rand_magnitude)
    return image


def augment_batch(key: Key, images: UInt8[Array, "b h w c"], settings: Augment) -> Float[Array, "b h w c"]:
    """Augment 8-bit images, each with its own random numbers, and return them as float32 in [0, 1].

    Raises InputError as check_channels does.
    """
    check_channels(settings, images.shape[-1])
    scaled = images.astype(jnp.float32) / 255
    keys = jax.random.split(key, images.shape[0])
    return jax.vmap(lambda k, image: augment_one(k, image, settings))(keys, scaled)
