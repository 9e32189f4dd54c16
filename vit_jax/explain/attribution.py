"""Attribution to the input pixels: integrated gradients, and RISE's random masks.

Letters: B batch, K target classes, C classes, n patches, h x w image, M masks.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vit_jax.attention import Key
from vit_jax.errors import InputError
from vit_jax.explain.gradients import Targets, check_targets, class_cotangents, restore_target_axis
from vit_jax.model import Images, VisionTransformer
from vit_jax.position import RESIZE_METHODS
from vit_jax.prediction import probabilities


class IntegratedGradients(NamedTuple):
    """maps: [B, n] or [B, K, n], signed. gap: [B] or [B, K], sum of the map minus the difference of the logits."""

    maps: Float[Array, "..."]
    gap: Float[Array, "..."]


def sum_over_patches(pixels: Float[Array, "... h w c"], patch_size: tuple[int, int]) -> Float[Array, "... n"]:
    """Sum over the pixels and channels of each patch; patches in row-major order."""
    *lead, h, w, c = pixels.shape
    ph, pw = patch_size
    split = pixels.reshape(*lead, h // ph, ph, w // pw, pw, c)
    return split.sum(axis=(-4, -2, -1)).reshape(*lead, (h // ph) * (w // pw))


def integrated_gradients(
    model: VisionTransformer,
    images: Images,
    targets: Targets,
    *,
    baseline: Float[Array | np.ndarray, "..."] | None = None,
    steps: int = 32,
) -> IntegratedGradients:
    """Attribute each target class's logit y to the patches, along the line from a baseline x' to the image x.

        (x - x') * integral over a in [0, 1] of dy/dx at x' + a (x - x'),   summed over each patch

    The integral is computed by Gauss-Legendre quadrature at `steps` points. By the completeness axiom a map sums to
    y(x) - y(x'); `gap` is the remaining error.

    baseline: any shape that broadcasts to the images. None is 0: mid-grey for inputs normalised by 0.5.
    Source: Sundararajan et al., ICML 2017, arXiv 1703.01365.
    Raises InputError for an unknown class, steps below 1, a baseline that does not broadcast, and as the model does.
    """
    if steps < 1:
        raise InputError(f"steps must be at least 1, not {steps}")
    config = model.config
    classes = check_targets(targets, images.shape[0], config.num_outputs)
    images = jnp.asarray(images)
    try:
        start = jnp.broadcast_to(0.0 if baseline is None else jnp.asarray(baseline), images.shape).astype(images.dtype)
    except ValueError as error:
        raise InputError(f"baseline does not broadcast to the images {images.shape}") from error
    points, quadrature = np.polynomial.legendre.leggauss(steps)
    cotangents = class_cotangents(classes, config.num_outputs, jax.eval_shape(model, images).dtype)

    def accumulate(total: Float[Array, "k b h w c"], node: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        _, pull = jax.vjp(model, start + node[0] * (images - start))
        return total + node[1] * jax.vmap(lambda cotangent: pull(cotangent)[0])(cotangents), None

    nodes = (jnp.asarray((points + 1) / 2, images.dtype), jnp.asarray(quadrature / 2, images.dtype))
    zeros = jnp.zeros((cotangents.shape[0], *images.shape), images.dtype)
    mean_gradient, _ = jax.lax.scan(accumulate, zeros, nodes)
    maps = sum_over_patches((images - start)[None] * mean_gradient, config.patch_size)
    logit_difference = jnp.take_along_axis(model(images) - model(start), classes, axis=1).T
    return IntegratedGradients(
        restore_target_axis(maps, targets), restore_target_axis(maps.sum(axis=-1) - logit_difference, targets)
    )


def draw_rise_masks(
    key: Key, count: int, image_size: tuple[int, int], *, grid: tuple[int, int], keep: float
) -> Float[Array, "m h w"]:
    """Draw RISE's random masks, in [0, 1].

    Each cell of a coarse grid is 1 with probability `keep`. The grid is upsampled bilinearly to one cell more than the
    image and cropped at a random offset. Source: Petsiuk et al., BMVC 2018, arXiv 1806.07421, section 3.2.
    """
    cell_size = [-(-size // cells) for size, cells in zip(image_size, grid, strict=True)]
    rows, columns = (
        jnp.asarray(RESIZE_METHODS["bilinear"](cells, (cells + 1) * size), jnp.float32)
        for cells, size in zip(grid, cell_size, strict=True)
    )

    def draw_mask(key: Key) -> Float[Array, "h w"]:
        cell_key, row_key, column_key = jax.random.split(key, 3)
        cells = jax.random.bernoulli(cell_key, keep, grid).astype(jnp.float32)
        top = jax.random.randint(row_key, (), 0, cell_size[0])
        left = jax.random.randint(column_key, (), 0, cell_size[1])
        upsample_rows = jax.lax.dynamic_slice_in_dim(rows, top, image_size[0])
        upsample_columns = jax.lax.dynamic_slice_in_dim(columns, left, image_size[1])
        return upsample_rows @ cells @ upsample_columns.T

    return jax.vmap(draw_mask)(jax.random.split(key, count))


def rise(
    model: VisionTransformer,
    images: Images,
    targets: Targets,
    *,
    key: Key | None = None,
    num_masks: int = 1000,
    grid: tuple[int, int] = (7, 7),
    keep: float = 0.5,
    batch_size: int = 32,
) -> Float[Array, "..."]:
    """Return the mean of random masks, each weighted by the target's probability for the masked image.

        sum over masks of p_target(x * mask) mask / (num_masks * keep)

    Shape [B, h, w] for targets [B] and [B, K, h, w] for [B, K]; values in [0, 1 / keep]. A masked pixel is 0, the
    mean that normalisation subtracts. Needs no gradients. Each mask costs one forward pass of all B images, for any K;
    about batch_size masked images are processed at a time. All images share the same masks.
    Source: Petsiuk et al., BMVC 2018, arXiv 1806.07421.
    Raises InputError for an unknown class, options out of range, and as the model does.
    """
    if num_masks < 1 or batch_size < 1 or min(grid) < 1 or not 0 < keep < 1:
        raise InputError("num_masks, batch_size and both sides of the grid are at least 1, keep is in (0, 1)")
    b, h, w, c = images.shape
    classes = check_targets(targets, b, model.config.num_outputs)
    images = jnp.asarray(images)
    step_masks = min(num_masks, max(1, batch_size // b))
    draw_masks = functools.partial(draw_rise_masks, count=step_masks, image_size=(h, w), grid=grid, keep=keep)

    def accumulate(total: Float[Array, "b k h w"], step: jax.Array) -> tuple[jax.Array, None]:
        masks = draw_masks(jax.random.fold_in(jax.random.key(0) if key is None else key, step))
        is_counted = (step * step_masks + jnp.arange(step_masks) < num_masks).astype(masks.dtype)
        masks = masks * is_counted.reshape(-1, 1, 1)
        masked = images[:, None] * masks[None, :, :, :, None].astype(images.dtype)
        logits = model(masked.reshape(b * step_masks, h, w, c)).astype(total.dtype)
        scores = probabilities(model.config, logits).reshape(b, step_masks, -1)
        weights = jnp.take_along_axis(scores, classes[:, None], axis=2)
        return total + jnp.einsum("bmk,mhw->bkhw", weights, masks.astype(total.dtype)), None

    zeros = jnp.zeros((b, classes.shape[1], h, w), jnp.promote_types(images.dtype, jnp.float32))
    total, _ = jax.lax.scan(accumulate, zeros, jnp.arange(-(-num_masks // step_masks)))
    maps = total / (num_masks * keep)
    return maps[:, 0] if targets.ndim == 1 else maps
