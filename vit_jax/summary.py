"""A model in a few lines."""

from typing import Any

import jax
from flax import nnx


def count_parameters(model: nnx.Module) -> int:
    """Return the number of parameters of a model, or of its shapes (jax.eval_shape)."""
    return sum(leaf.size for leaf in jax.tree.leaves(model))


def summarize(model: Any) -> str:
    """Return the type of a model with a config, its number of parameters and their types, and its architecture."""
    dtypes = sorted({str(leaf.dtype) for leaf in jax.tree.leaves(model)})
    title = f"{type(model).__name__}: {count_parameters(model):,} parameters, {' and '.join(dtypes)}"
    return f"{title}\n  {model.config.describe()}"
