"""Principal components of the patches' features, and their colours.

    X = patches of all pictures, minus their mean;  X = U S V^T;  scores = X V[:, :components]

Patches of the same part of an object have similar scores, also across pictures that share a fit.
Source: Oquab et al., DINOv2, arXiv 2304.07193, section 7.6 and figure 1.

Letters: B pictures, N tokens, D width, n patches, gh x gw grid of patches.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from vit_jax.errors import InputError
from vit_jax.explain.patch_features import Features, select_patches

Mask = Bool[Array | np.ndarray, "..."]
COLOUR_RANGE = (0.01, 0.99)  # quantiles of a component that become 0 and 1: a few patches have far higher scores


def patch_pca(
    features: Features, *, num_prefix: int, components: int = 3, mask: Mask | None = None
) -> Float[Array, "b m k"]:
    """Return the scores of each patch on the first principal components of all pictures' patches: [B, n, components].

    features: [B, N, D]. The B pictures share one fit; for fits of their own, map over the pictures.
    mask:     the patches to fit to, [B, n]; the others are projected onto the same components. None is all.

    Components are in descending order of their variance. The sign of each makes its entry of the largest magnitude
    positive, so that it does not depend on the order of the patches; the same as scikit-learn's PCA.
    Raises InputError for more components than the width or, outside jit, than the fitted patches minus 1, for a mask of
    another shape, and for a num_prefix that leaves no patch.
    """
    patches = select_patches(features, num_prefix)
    weights = _check_mask(mask, patches.shape[:2])
    _check_components(components, patches.shape[-1], weights)
    kept = jnp.asarray(weights, patches.dtype)[..., None]
    mean = (kept * patches).sum(axis=(0, 1), keepdims=True) / kept.sum()
    centred = patches - mean
    # R of the QR factorization has the same V, and D rows at most.
    triangle = jnp.linalg.qr((kept * centred).reshape(-1, patches.shape[-1]), mode="r")
    axes = jnp.linalg.svd(triangle, full_matrices=False)[2][:components]
    largest = jnp.take_along_axis(axes, jnp.abs(axes).argmax(axis=1, keepdims=True), axis=1)
    return jnp.einsum("bnd,kd->bnk", centred, jnp.sign(largest) * axes, precision=jax.lax.Precision.HIGHEST)


def foreground_mask(
    features: Features, *, num_prefix: int, grid: tuple[int, int], threshold: float = 0.0
) -> Bool[Array, "b m"]:
    """Return the patches of the foreground by a threshold on the first principal component: [B, n].

    The scores are divided by their standard deviation; those above the threshold are foreground. The component points
    to the side on which the pictures' border patches are rarer, since its own sign is arbitrary.
    grid: (rows, columns) of patches. All pictures share one fit, as in patch_pca.
    Source: Oquab et al., arXiv 2304.07193, figure 1, where the side is chosen by eye.
    Raises InputError for a grid of another number of patches, and as patch_pca does.
    """
    first = patch_pca(features, num_prefix=num_prefix, components=1)[..., 0]
    if first.shape[1] != grid[0] * grid[1]:
        raise InputError(f"{first.shape[1]} patches are not a {grid[0]}x{grid[1]} grid")
    is_border = np.pad(np.zeros((max(grid[0] - 2, 0), max(grid[1] - 2, 0)), bool), 1, constant_values=True)
    is_border = is_border[: grid[0], : grid[1]].reshape(-1)
    side = jnp.where(first[:, is_border].mean() > first.mean(), -1, 1)
    deviation = first.std()
    return side * first > threshold * deviation


def scale_to_colours(scores: Float[Array | np.ndarray, "... k"], mask: Mask | None = None) -> Float[Array, "... k"]:
    """Scale each component linearly to [0, 1] over all pictures, for RGB; a constant component becomes 0.

    The range is that of COLOUR_RANGE's quantiles of the patches in the mask, [...]; scores outside are clipped, and
    patches outside the mask become 0 (black). Raises InputError for a mask of another shape.
    """
    values = jnp.asarray(scores)
    weights = _check_mask(mask, values.shape[:-1])
    kept = jnp.where(jnp.asarray(weights)[..., None], values, jnp.nan)
    low, high = jnp.nanquantile(kept.reshape(-1, kept.shape[-1]), jnp.array(COLOUR_RANGE, values.dtype), axis=0)
    low, span = (part.reshape((1,) * (values.ndim - 1) + part.shape) for part in (low, high - low))
    scaled = jnp.where(span > 0, (values - low) / jnp.where(span > 0, span, 1), 0).clip(0, 1)
    return jnp.where(jnp.asarray(weights)[..., None], scaled, 0)


def _check_mask(mask: Any, shape: tuple[int, ...]) -> Any:
    """Return the mask, or one that keeps all."""
    if mask is None:
        return np.ones(shape, bool)
    if tuple(mask.shape) != tuple(shape):
        raise InputError(f"a mask of shape {list(mask.shape)} does not fit patches of shape {list(shape)}")
    return mask


def _check_components(components: int, width: int, mask: Any) -> None:
    if not 1 <= components <= width:
        raise InputError(f"components must be 1 to {width}, the width of the features, not {components}")
    if not isinstance(mask, jax.core.Tracer):
        count = int(np.asarray(mask).sum())
        if components >= count:
            raise InputError(f"{components} components need at least {components + 1} patches, not {count}")
