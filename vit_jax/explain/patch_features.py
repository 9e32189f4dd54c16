"""Maps of the patches' tokens themselves: similarity to a patch or a region, and norms.

Letters: B batch, N tokens, D width, n patches.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vit_jax.errors import InputError

Features = Float[Array | np.ndarray, "b n d"]


def select_patches(features: Features, num_prefix: int) -> Float[Array, "b m d"]:
    """Return the patches' tokens, in float32 at least. Raises InputError for a num_prefix that leaves none."""
    tokens = features.shape[1]
    if not 0 <= num_prefix < tokens:
        raise InputError(f"num_prefix must be 0 to {tokens - 1}, since there are {tokens} tokens, not {num_prefix}")
    patches = jnp.asarray(features)[:, num_prefix:]
    return patches.astype(jnp.promote_types(patches.dtype, jnp.float32))


def patch_similarity(features: Features, index: Any, *, num_prefix: int) -> Float[Array, "b m"]:
    """Return the cosine similarity of every patch to a patch or a region of its picture: [B, n] in [-1, 1].

    features: [B, N, D], as of forward_with_attention.
    index:    a patch, counted 0 to n - 1 row by row; or a region as several of them [r] or as booleans [n]. A region
              stands for the mean of its patches' unit vectors, so that each counts the same.
    Source: Amir et al., arXiv 2112.05814 (cosine similarity of ViT features).
    Raises InputError for a patch that does not exist, an empty region, and a num_prefix that leaves no patch.
    """
    patches = select_patches(features, num_prefix)
    unit = _normalize(patches)
    region = unit[:, _check_index(index, patches.shape[1])].mean(axis=1)
    return jnp.einsum("bnd,bd->bn", unit, _normalize(region), precision=jax.lax.Precision.HIGHEST).clip(-1, 1)


def token_norms(features: Features, *, num_prefix: int) -> Float[Array, "b m"]:
    """Return the Euclidean norm of each patch's token: [B, n], at least 0.

    Tokens of a far higher norm than their neighbours hold global information in place of their patch's.
    features: tokens that leave a block, before the final norm, which makes all norms alike.
    Source: Darcet et al., ICLR 2024, arXiv 2309.16588.
    Raises InputError for a num_prefix that leaves no patch.
    """
    return jnp.linalg.norm(select_patches(features, num_prefix), axis=-1)


def _normalize(vectors: Float[Array, "... d"]) -> Float[Array, "... d"]:
    """Divide by the norm; a vector of zeros stays one."""
    norms = jnp.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / jnp.maximum(norms, jnp.finfo(vectors.dtype).tiny)


def _check_index(index: Any, num_patches: int) -> np.ndarray:
    """Return the patches of a region as numbers [r]."""
    chosen = np.asarray(index)
    if chosen.dtype == bool:
        if chosen.shape != (num_patches,):
            raise InputError(f"a region of booleans has the shape [{num_patches}], not {list(chosen.shape)}")
        chosen = np.flatnonzero(chosen)
    if not np.issubdtype(chosen.dtype, np.integer) or chosen.ndim > 1:
        raise InputError("index is a patch, or a list of patches, as whole numbers")
    chosen = chosen.reshape(-1)
    if not chosen.size:
        raise InputError("the region has no patch; give at least one")
    unknown = chosen[(chosen < 0) | (chosen >= num_patches)]
    if unknown.size:
        raise InputError(f"no patch {unknown[0]}: there are {num_patches}, counted 0 to {num_patches - 1} row by row")
    return chosen
