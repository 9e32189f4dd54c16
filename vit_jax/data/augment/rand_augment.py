"""RandAugment (https://arxiv.org/abs/1909.13719) on the device, with torchvision's operations, on 8-bit levels.

torchvision.transforms.RandAugment on PIL images with its defaults: 31 bins of magnitude, nearest pixel, black where
nothing comes from inside. Every operation works on float arrays that hold whole levels from 0 to 255, and cuts or
rounds as Pillow does: the same levels, but for one level at a few pixels of color, contrast, sharpness (where the
compiler multiplies and adds in one) and autocontrast (which Pillow reckons in float64), and for the few pixels that
float32 angles take from a neighbour.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from vit_jax.attention import Key

Levels = Float[Array, "h w 3"]
Number = Float[Array, ""]
BINS = 31
LUMA = (19595, 38470, 7471)  # of 65536: Pillow's weights of R, G and B


def affine(image: Levels, a: Number, b: Number, c: Number, d: Number, e: Number, f: Number) -> Levels:
    """Pillow's Image.transform: the pixel at (x, y) comes from (a x + b y + c, d x + e y + f), taken at its middle.

    In steps of 1 / 65536, as Pillow reckons, so that places between two pixels go to the same one.
    """
    h, w, _ = image.shape
    y, x = jnp.meshgrid(jnp.arange(h), jnp.arange(w), indexing="ij")

    def place(of_x: Number, of_y: Number, start: Number) -> Array:
        numbers = (of_x, of_y, start + 0.5 * of_x + 0.5 * of_y)
        fixed = [jnp.floor(number * 65536 + 0.5).astype(jnp.int32) for number in numbers]
        return (fixed[0] * x + fixed[1] * y + fixed[2]) >> 16

    column, row = place(a, b, c), place(d, e, f)
    inside = (row >= 0) & (row < h) & (column >= 0) & (column < w)
    return jnp.where(inside[..., None], image[row.clip(0, h - 1), column.clip(0, w - 1)], 0.0)


def _numbers(*values: int | float | Array) -> list[Number]:
    return [jnp.asarray(value, jnp.float32) for value in values]


def shear_x(image: Levels, amount: Number) -> Levels:
    """Rows slide by amount for each row from the top."""
    return affine(image, *_numbers(1, amount, 0, 0, 1, 0))


def shear_y(image: Levels, amount: Number) -> Levels:
    """Columns slide by amount for each column from the left."""
    return affine(image, *_numbers(1, 0, 0, amount, 1, 0))


def translate_x(image: Levels, pixels: Number) -> Levels:
    """To the right, by whole pixels."""
    return affine(image, *_numbers(1, 0, -jnp.trunc(pixels), 0, 1, 0))


def translate_y(image: Levels, pixels: Number) -> Levels:
    """Downward, by whole pixels."""
    return affine(image, *_numbers(1, 0, 0, 0, 1, -jnp.trunc(pixels)))


def rotate(image: Levels, degrees: Number) -> Levels:
    """Counter-clockwise about the middle."""
    h, w, _ = image.shape
    angle = jnp.deg2rad(degrees)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    x, y = w / 2, h / 2
    return affine(image, cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y)


def grey(image: Levels) -> Float[Array, "h w 1"]:
    """Pillow's convert("L")."""
    whole = image.astype(jnp.int32) * jnp.array(LUMA, jnp.int32).reshape(1, 1, 3)
    return ((whole.sum(axis=-1, keepdims=True) + 0x8000) >> 16).astype(image.dtype)


def _enhanced(image: Levels, without: Float[Array, "..."], factor: Number) -> Levels:
    """ImageEnhance: away from or towards an image that lacks the quality, cut to levels."""
    return jnp.floor(jnp.clip(without + factor * (image - without), 0, 255))


def brightness(image: Levels, factor: Number) -> Levels:
    """By the factor."""
    return _enhanced(image, jnp.zeros((1, 1, 1)), factor)


def color(image: Levels, factor: Number) -> Levels:
    """Saturation by the factor."""
    return _enhanced(image, grey(image), factor)


def contrast(image: Levels, factor: Number) -> Levels:
    """About the mean grey, by the factor."""
    mean = jnp.floor(grey(image).mean() + 0.5)
    return _enhanced(image, mean.reshape(1, 1, 1), factor)


def sharpness(image: Levels, factor: Number) -> Levels:
    """Away from or towards a smoothed image, whose edge is the image's own, by the factor."""
    h, w, _ = image.shape
    around = sum(image[i : h - 2 + i, j : w - 2 + j] for i in range(3) for j in range(3))
    smooth = jnp.floor((around + 4 * image[1:-1, 1:-1]) / 13 + 0.5)
    middle = jnp.concatenate([image[1:-1, :1], smooth, image[1:-1, -1:]], axis=1)
    return _enhanced(image, jnp.concatenate([image[:1], middle, image[-1:]]), factor)


def posterize(image: Levels, bits: Number) -> Levels:
    """The upper bits of each level."""
    step = 2.0 ** (8 - bits)
    return jnp.floor(image / step) * step


def solarize(image: Levels, threshold: Number) -> Levels:
    """Levels from the threshold on, inverted."""
    return jnp.where(image < threshold, image, 255 - image)


def autocontrast(image: Levels, _: Number) -> Levels:
    """Each channel stretched to all levels."""
    least, most = image.min(axis=(0, 1), keepdims=True), image.max(axis=(0, 1), keepdims=True)
    stretched = jnp.floor((image - least) * 255 / jnp.maximum(most - least, 1))
    return jnp.where(most > least, stretched, image)


def equalize(image: Levels, _: Number) -> Levels:
    """Each channel with its levels as even as can be."""

    def channel(levels: Float[Array, "h w"]) -> Float[Array, "h w"]:
        places = levels.astype(jnp.int32)
        counts = jnp.zeros(256, jnp.int32).at[places].add(1)
        last = counts[places.max()]
        step = (counts.sum() - last) // 255
        table = (step // 2 + jnp.cumsum(counts) - counts) // jnp.maximum(step, 1)
        return jnp.where(step > 0, jnp.clip(table, 0, 255)[places].astype(levels.dtype), levels)

    return jax.vmap(channel, in_axes=2, out_axes=2)(image)


def _either(amount: float) -> tuple[float, float]:
    return amount, -amount


def _about_one(amount: float) -> tuple[float, float]:
    return 1 + amount, 1 - amount


# An operation, and its amounts at bin i of BINS for an image h x w: one of them is drawn.
Amounts = Callable[[int, int, int], tuple[float, ...]]
Operation = Callable[[Levels, Number], Levels]
OPERATIONS: dict[str, tuple[Operation, Amounts]] = {
    "identity": (lambda image, _: image, lambda i, h, w: (0.0,)),
    "shear_x": (shear_x, lambda i, h, w: _either(0.3 * i / (BINS - 1))),
    "shear_y": (shear_y, lambda i, h, w: _either(0.3 * i / (BINS - 1))),
    "translate_x": (translate_x, lambda i, h, w: _either(150.0 / 331.0 * w * i / (BINS - 1))),
    "translate_y": (translate_y, lambda i, h, w: _either(150.0 / 331.0 * h * i / (BINS - 1))),
    "rotate": (rotate, lambda i, h, w: _either(30.0 * i / (BINS - 1))),
    "brightness": (brightness, lambda i, h, w: _about_one(0.9 * i / (BINS - 1))),
    "color": (color, lambda i, h, w: _about_one(0.9 * i / (BINS - 1))),
    "contrast": (contrast, lambda i, h, w: _about_one(0.9 * i / (BINS - 1))),
    "sharpness": (sharpness, lambda i, h, w: _about_one(0.9 * i / (BINS - 1))),
    "posterize": (posterize, lambda i, h, w: (8.0 - round(i / ((BINS - 1) / 4)),)),
    "solarize": (solarize, lambda i, h, w: (255.0 - 255.0 * i / (BINS - 1),)),
    "autocontrast": (autocontrast, lambda i, h, w: (0.0,)),
    "equalize": (equalize, lambda i, h, w: (0.0,)),
}


def apply_rand_augment(key: Key, image: Float[Array, "h w 3"], count: int, magnitude: int) -> Float[Array, "h w 3"]:
    """An image in [0, 1] after `count` operations drawn from all, each at bin `magnitude` (0 to 30) of its amounts."""
    h, w, _ = image.shape
    branches = [partial(_at, operation, amounts(magnitude, h, w)) for operation, amounts in OPERATIONS.values()]
    levels = jnp.round(image * 255)
    for number in range(count):
        which, sign = jax.random.split(jax.random.fold_in(key, number))
        chosen = jax.random.randint(which, (), 0, len(branches))
        levels = jax.lax.switch(chosen, branches, levels, jax.random.bernoulli(sign))
    return levels / 255


def _at(operation: Operation, amounts: tuple[float, ...], image: Levels, last: Bool[Array, ""]) -> Levels:
    # Each is rounded to float32 from the whole sum, as Pillow does: 1 + float32(0.27) is not float32(1.27).
    return operation(image, jnp.where(last, jnp.float32(amounts[-1]), jnp.float32(amounts[0]))).astype(image.dtype)
