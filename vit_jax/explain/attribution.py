"""Maps from the model's answers alone: integrated gradients over the pixels, and RISE's random masks.

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


class IntegratedGradients(NamedTuple):
    """maps: [B, n] or [B, K, n], signed. gap: [B] or [B, K], the maps' sum less the logit's rise it should equal."""

    maps: Float[Array, "..."]
    gap: Float[Array, "..."]


def patch_sums(pixels: Float[Array, "... h w c"], patch_size: tuple[int, int]) -> Float[Array, "... n"]:
    """The sum over each patch's pixels and channels, patches in row order."""
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
    """How much each patch's pixels add to each target class's logit, along the line from a baseline to the image.

        (x - x') * integral over a in [0, 1] of dy/dx at x' + a (x - x'),   summed over each patch

    The integral is by Gauss-Legendre quadrature at `steps` points. By the completeness axiom the maps sum to
    y(x) - y(x'); gap says by how much they miss it.

    baseline: what counts as nothing, any shape that broadcasts to the images; None is 0, mid-grey for a model whose
    inputs are normalised by 0.5. Source: Sundararajan et al., ICML 2017, arXiv 1703.01365.
    Raises InputError for a class that there is not, steps below 1, and as the model does.
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

    def add(total: Float[Array, "k b h w c"], node: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        _, pull = jax.vjp(model, start + node[0] * (images - start))
        return total + node[1] * jax.vmap(lambda cotangent: pull(cotangent)[0])(cotangents), None

    nodes = (jnp.asarray((points + 1) / 2, images.dtype), jnp.asarray(quadrature / 2, images.dtype))
    zeros = jnp.zeros((cotangents.shape[0], *images.shape), images.dtype)
    mean_gradient, _ = jax.lax.scan(add, zeros, nodes)
    maps = patch_sums((images - start)[None] * mean_gradient, config.patch_size)
    rise_of_logit = jnp.take_along_axis(model(images) - model(start), classes, axis=1).T
    return IntegratedGradients(
        restore_target_axis(maps, targets), restore_target_axis(maps.sum(axis=-1) - rise_of_logit, targets)
    )


def rise_masks(
    key: Key, count: int, image_size: tuple[int, int], *, grid: tuple[int, int], keep: float
) -> Float[Array, "m h w"]:
    """RISE's random masks in [0, 1]: each cell of a coarse grid is kept with probability `keep`, enlarged bilinearly.

    The grid is enlarged by a cell more than the image and shifted at random. Source: Petsiuk et al., BMVC 2018,
    arXiv 1806.07421, section 3.2.
    """
    cells = [-(-size // cells) for size, cells in zip(image_size, grid, strict=True)]
    rows, columns = (
        jnp.asarray(RESIZE_METHODS["bilinear"](number, (number + 1) * cell), jnp.float32)
        for number, cell in zip(grid, cells, strict=True)
    )

    def one(key: Key) -> Float[Array, "h w"]:
        cell_key, row_key, column_key = jax.random.split(key, 3)
        kept = jax.random.bernoulli(cell_key, keep, grid).astype(jnp.float32)
        top = jax.random.randint(row_key, (), 0, cells[0])
        left = jax.random.randint(column_key, (), 0, cells[1])
        down = jax.lax.dynamic_slice_in_dim(rows, top, image_size[0])
        across = jax.lax.dynamic_slice_in_dim(columns, left, image_size[1])
        return down @ kept @ across.T

    return jax.vmap(one)(jax.random.split(key, count))


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
    """Which pixels a class's probability needs: the mean of random masks, weighted by the answer through each.

        sum over masks of p_target(x * mask) mask / (num_masks * keep)

    Answers [B, h, w] for targets [B], [B, K, h, w] for [B, K], in [0, 1 / keep]. No gradients: every mask costs a
    forward pass of all B images, whatever K is; about batch_size masked images go through the model at a time. The
    same masks serve all images. What a mask hides is 0, the normalised images' mean.
    Source: Petsiuk et al., BMVC 2018, arXiv 1806.07421.
    Raises InputError as the model does, and for options out of range.
    """
    if num_masks < 1 or batch_size < 1 or min(grid) < 1 or not 0 < keep < 1:
        raise InputError("num_masks, batch_size and both sides of the grid are at least 1, keep is in (0, 1)")
    b, h, w, c = images.shape
    classes = check_targets(targets, b, model.config.num_outputs)
    images = jnp.asarray(images)
    together = min(num_masks, max(1, batch_size // b))
    masks_of = functools.partial(rise_masks, count=together, image_size=(h, w), grid=grid, keep=keep)

    def add(total: Float[Array, "b k h w"], number: jax.Array) -> tuple[jax.Array, None]:
        masks = masks_of(jax.random.fold_in(jax.random.key(0) if key is None else key, number))
        counted = (number * together + jnp.arange(together) < num_masks).astype(masks.dtype)
        masks = masks * counted.reshape(-1, 1, 1)
        masked = images[:, None] * masks[None, :, :, :, None].astype(images.dtype)
        probabilities = jax.nn.softmax(model(masked.reshape(b * together, h, w, c)).astype(total.dtype))
        chosen = jnp.take_along_axis(probabilities.reshape(b, together, -1), classes[:, None], axis=2)
        return total + jnp.einsum("bmk,mhw->bkhw", chosen, masks.astype(total.dtype)), None

    zeros = jnp.zeros((b, classes.shape[1], h, w), jnp.promote_types(images.dtype, jnp.float32))
    total, _ = jax.lax.scan(add, zeros, jnp.arange(-(-num_masks // together)))
    maps = total / (num_masks * keep)
    return maps[:, 0] if targets.ndim == 1 else maps
