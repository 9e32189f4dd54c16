"""The type that a model computes in: that of its parameters, to which images are cast. `cast` chooses it."""

from typing import Any

import jax
import jax.numpy as jnp

DTYPES = {"float32": None, "bfloat16": jnp.bfloat16}


def cast(tree: Any, dtype: str) -> Any:
    """Cast the floating-point arrays of a pytree to a name of DTYPES; float32 leaves them as they are.

    In bfloat16, softmax, its scores and GELU are computed in float32, products, norms and sums of tokens in bfloat16.
    """
    target = DTYPES[dtype]
    if target is None:
        return tree
    return jax.tree.map(lambda x: x.astype(target) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)
