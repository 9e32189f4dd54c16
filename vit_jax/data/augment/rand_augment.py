"""RandAugment (https://arxiv.org/abs/1909.13719) on the device, with torchvision's operations, on 8-bit levels.

Agrees with torchvision.transforms.RandAugment on PIL images with its defaults: 31 magnitude bins, nearest neighbour,
black outside the image. Operations work on float arrays of integral levels from 0 to 255, and truncate or round as
Pillow does. Known differences: one level at a few pixels of color, contrast and sharpness (fused multiply-add) and of
autocontrast (float64 in Pillow); rotations by float32 angles sample a neighbouring pixel in a few places.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from vit_jax.attention import Key

Levels = Float[Array, "h w c"]
Number = Float[Array, ""]
BINS = 31
LUMA = (19595, 38470, 7471)  # of 65536: Pillow's weights of R, G and B


def affine(image: Levels, a: Number, b: Number, c: Number, d: Number, e: Number, f: Number) -> Levels:
    """Sample the pixel at (x, y) from (a x + b y + c, d x + e y + f) in pixel centres, as Pillow's Image.transform.

    Uses Pillow's fixed point (1 / 65536), so that coordinates between two pixels round to the same one.
    """
    h, w, _ = image.shape
    y, x = jnp.meshgrid(jnp.arange(h), jnp.arange(w), indexing="ij")

    def coordinate(x_factor: Number, y_factor: Number, offset: Number) -> Array:
        numbers = (x_factor, y_factor, offset + 0.5 * x_factor + 0.5 * y_factor)
        fixed = [jnp.floor(number * 65536 + 0.5).astype(jnp.int32) for number in numbers]
        return (fixed[0] * x + fixed[1] * y + fixed[2]) >> 16

    column, row = coordinate(a, b, c), coordinate(d, e, f)
    inside = (row >= 0) & (row < h) & (column >= 0) & (column < w)
    return jnp.where(inside[..., None], image[row.clip(0, h - 1), column.clip(0, w - 1)], 0.0)


def _as_numbers(*values: int | float | Array) -> list[Number]:
    return [jnp.asarray(value, jnp.float32) for value in values]


def shear_x(image: Levels, amount: Number) -> Levels:
    """Shift each row by `amount` pixels per row from the top."""
    return affine(image, *_as_numbers(1, amount, 0, 0, 1, 0))


def shear_y(image: Levels, amount: Number) -> Levels:
    """Shift each column by `amount` pixels per column from the left."""
    return affine(image, *_as_numbers(1, 0, 0, amount, 1, 0))


def translate_x(image: Levels, pixels: Number) -> Levels:
    """Move to the right by an integral number of pixels."""
    return affine(image, *_as_numbers(1, 0, -jnp.trunc(pixels), 0, 1, 0))


def translate_y(image: Levels, pixels: Number) -> Levels:
    """Move down by an integral number of pixels."""
    return affine(image, *_as_numbers(1, 0, 0, 0, 1, -jnp.trunc(pixels)))


def rotate(image: Levels, degrees: Number) -> Levels:
    """Rotate counter-clockwise about the centre."""
    h, w, _ = image.shape
    angle = jnp.deg2rad(degrees)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    x, y = w / 2, h / 2
    return affine(image, cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y)


def grey(image: Levels) -> Float[Array, "h w 1"]:
    """Convert to grey as Pillow's convert("L"); a grey image stays as it is."""
    if image.shape[-1] == 1:
        return image
    luma = image.astype(jnp.int32) * jnp.array(LUMA, jnp.int32).reshape(1, 1, 3)
    return ((luma.sum(axis=-1, keepdims=True) + 0x8000) >> 16).astype(image.dtype)


def _enhance(image: Levels, degenerate: Float[Array, "..."], factor: Number) -> Levels:
    """Blend as Pillow's ImageEnhance: factor 0 is the degenerate image, 1 the image; truncate to levels."""
    return jnp.floor(jnp.clip(degenerate + factor * (image - degenerate), 0, 255))


def brightness(image: Levels, factor: Number) -> Levels:
    """Multiply by the factor."""
    return _enhance(image, jnp.zeros((1, 1, 1)), factor)


def color(image: Levels, factor: Number) -> Levels:
    """Scale the saturation by the factor."""
    return _enhance(image, grey(image), factor)


def contrast(image: Levels, factor: Number) -> Levels:
    """Scale the distance to the mean grey by the factor."""
    mean = jnp.floor(grey(image).mean() + 0.5)
    return _enhance(image, mean.reshape(1, 1, 1), factor)


def sharpness(image: Levels, factor: Number) -> Levels:
    """Scale the distance to a smoothed image, which keeps the border pixels, by the factor."""
    h, w, _ = image.shape
    around = sum(image[i : h - 2 + i, j : w - 2 + j] for i in range(3) for j in range(3))
    smooth = jnp.floor((around + 4 * image[1:-1, 1:-1]) / 13 + 0.5)
    middle = jnp.concatenate([image[1:-1, :1], smooth, image[1:-1, -1:]], axis=1)
    return _enhance(image, jnp.concatenate([image[:1], middle, image[-1:]]), factor)


def posterize(image: Levels, bits: Number) -> Levels:
    """Keep the upper bits of each level."""
    step = 2.0 ** (8 - bits)
    return jnp.floor(image / step) * step


def solarize(image: Levels, threshold: Number) -> Levels:
    """Invert levels from the threshold up."""
    return jnp.where(image < threshold, image, 255 - image)


def autocontrast(image: Levels, _: Number) -> Levels:
    """Stretch each channel to the full range of levels."""
    low, high = image.min(axis=(0, 1), keepdims=True), image.max(axis=(0, 1), keepdims=True)
    stretched = jnp.floor((image - low) * 255 / jnp.maximum(high - low, 1))
    return jnp.where(high > low, stretched, image)


def equalize(image: Levels, _: Number) -> Levels:
    """Equalize the histogram of each channel."""

    def channel(levels: Float[Array, "h w"]) -> Float[Array, "h w"]:
        bins = levels.astype(jnp.int32)
        counts = jnp.zeros(256, jnp.int32).at[bins].add(1)
        last = counts[bins.max()]
        step = (counts.sum() - last) // 255
        table = (step // 2 + jnp.cumsum(counts) - counts) // jnp.maximum(step, 1)
        return jnp.where(step > 0, jnp.clip(table, 0, 255)[bins].astype(levels.dtype), levels)

    return jax.vmap(channel, in_axes=2, out_axes=2)(image)


def _plus_minus(amount: float) -> tuple[float, float]:
    return amount, -amount


def _one_plus_minus(amount: float) -> tuple[float, float]:
    return 1 + amount, 1 - amount


# Each operation with its possible amounts at magnitude bin i for an h x w image; one amount is drawn at random.
Amounts = Callable[[int, int, int], tuple[float, ...]]
Operation = Callable[[Levels, Number], Levels]
OPERATIONS: dict[str, tuple[Operation, Amounts]] = {
    "identity": (lambda image, _: image, lambda i, h, w: (0.0,)),
    "shear_x": (shear_x, lambda i, h, w: _plus_minus(0.3 * i / (BINS - 1))),
    "shear_y": (shear_y, lambda i, h, w: _plus_minus(0.3 * i / (BINS - 1))),
    "translate_x": (translate_x, lambda i, h, w: _plus_minus(150.0 / 331.0 * w * i / (BINS - 1))),
    "translate_y": (translate_y, lambda i, h, w: _plus_minus(150.0 / 331.0 * h * i / (BINS - 1))),
    "rotate": (rotate, lambda i, h, w: _plus_minus(30.0 * i / (BINS - 1))),
    "brightness": (brightness, lambda i, h, w: _one_plus_minus(0.9 * i / (BINS - 1))),
    "color": (color, lambda i, h, w: _one_plus_minus(0.9 * i / (BINS - 1))),
    "contrast": (contrast, lambda i, h, w: _one_plus_minus(0.9 * i / (BINS - 1))),
    "sharpness": (sharpness, lambda i, h, w: _one_plus_minus(0.9 * i / (BINS - 1))),
    "posterize": (posterize, lambda i, h, w: (8.0 - round(i / ((BINS - 1) / 4)),)),
    "solarize": (solarize, lambda i, h, w: (255.0 - 255.0 * i / (BINS - 1),)),
    "autocontrast": (autocontrast, lambda i, h, w: (0.0,)),
    "equalize": (equalize, lambda i, h, w: (0.0,)),
}


def apply_rand_augment(key: Key, image: Float[Array, "h w c"], count: int, magnitude: int) -> Float[Array, "h w c"]:
    """Apply `count` random operations to an RGB or grey image in [0, 1], each with an amount of bin `magnitude`."""
    h, w, _ = image.shape
    branches = [partial(_apply, operation, amounts(magnitude, h, w)) for operation, amounts in OPERATIONS.values()]
    levels = jnp.round(image * 255)
    for number in range(count):
        which_key, sign_key = jax.random.split(jax.random.fold_in(key, number))
        which = jax.random.randint(which_key, (), 0, len(branches))
        levels = jax.lax.switch(which, branches, levels, jax.random.bernoulli(sign_key))
    return levels / 255


def _apply(operation: Operation, amounts: tuple[float, ...], image: Levels, use_last: Bool[Array, ""]) -> Levels:
    # Sums are rounded to float32 once, as in Pillow: 1 + float32(0.27) is not float32(1.27).
    return operation(image, jnp.where(use_last, jnp.float32(amounts[-1]), jnp.float32(amounts[0]))).astype(image.dtype)
