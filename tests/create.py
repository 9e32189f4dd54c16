"""Random models for tests that need no initial values. numpy draws them: nothing has to be compiled."""

from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

Model = TypeVar("Model", bound=nnx.Module)


def create(kind: type[Model], config, *, seed: int = 0) -> Model:
    """Return a model whose scales and variances are near 1, other vectors near 0; arrays keep their inputs' scale."""
    shapes = jax.eval_shape(lambda: kind(config, rngs=nnx.Rngs(0)))
    random = np.random.RandomState(seed)

    def draw(path, leaf):
        center = 1.0 if any(getattr(entry, "name", None) in ("scale", "var") for entry in path) else 0.0
        spread = 0.02 if leaf.ndim == 1 else 1 / np.sqrt(np.prod(leaf.shape[:-1]))
        return jnp.asarray(center + spread * random.standard_normal(leaf.shape), leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)
