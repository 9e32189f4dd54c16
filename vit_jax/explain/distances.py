"""How far each attention head looks.

Source: Dosovitskiy et al., ICLR 2021, arXiv 2010.11929, figures 7 and 11; Raghu et al., NeurIPS 2021, arXiv 2108.08810.

Letters: L layers, B batch, H heads, N tokens, n patches.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vit_jax.errors import InputError
from vit_jax.model import Images, VisionTransformer


def patch_distances(grid: tuple[int, int], patch_size: tuple[int, int] = (1, 1)) -> Float[np.ndarray, "n n"]:
    """Return the Euclidean distance between the centres of every two patches: [n, n], in the unit of patch_size."""
    places = np.stack(np.meshgrid(*map(np.arange, grid), indexing="ij"), axis=-1).reshape(-1, 2) * np.array(patch_size)
    return np.sqrt(np.square(places[:, None] - places[None]).sum(axis=-1))


def attention_distance(
    attention: Float[Array, "*lead n n"],
    grid: tuple[int, int],
    *,
    num_prefix: int,
    patch_size: tuple[int, int] = (1, 1),
) -> Float[Array, "*lead"]:
    """Return the mean distance from a patch to the patches that it attends to, weighted by the attention: [L, B, H].

        mean over patches q of   sum_k A[q, k] |p_q - p_k| / sum_k A[q, k],   k over the patches

    attention: [L, B, H, N, N] or any leading axes. Prefix tokens have no place and are left out, as queries and keys.
    Distances are in patches, or with the model's patch_size in pixels.
    Raises InputError for a grid that does not fit the tokens.
    """
    tokens = attention.shape[-1]
    if num_prefix < 0 or tokens - num_prefix != grid[0] * grid[1]:
        raise InputError(f"{tokens} tokens are not {num_prefix} prefix tokens and a {grid[0]}x{grid[1]} grid")
    weights = attention[..., num_prefix:, num_prefix:]
    distances = jnp.asarray(patch_distances(grid, patch_size), weights.dtype)
    total = weights.sum(axis=-1)
    weighted = jnp.einsum("...qk,qk->...q", weights, distances)
    return (weighted / jnp.where(total > 0, total, 1)).mean(axis=-1)


def attention_distance_from_images(model: VisionTransformer, images: Images) -> Float[Array, "layers b heads"]:
    """Return attention_distance of every head, [L, B, H] in pixels, while holding one layer's weights at a time."""
    config = model.config
    grid = config.grid_for(images.shape[1:3])

    def append(layers: Any, layer: int, weights: Float[Array, "b h n n"]) -> Any:
        distances = attention_distance(weights, grid, num_prefix=config.num_prefix, patch_size=config.patch_size)
        return (*layers, distances)

    return jnp.stack(model.run(images, layers=range(len(model.blocks)), fold=append, initial=()).attention)
