"""Dense layers: nnx.Linear, with the products and sums of vit_jax._xla."""

from typing import Any

import jax
from flax import nnx
from jaxtyping import Array, Float

from vit_jax._xla import add_bias, einsum


def affine(
    x: Float[Array, "*b n i"], kernel: Float[Array, "i o"], bias: Float[Array, " o"] | None
) -> Float[Array, "*b n o"]:
    """Return x @ kernel + bias."""
    product = einsum("...ni,io->...no", x, kernel)
    return product if bias is None else add_bias(product, bias)


class Linear(nnx.Linear):
    """A dense layer over the last axis of x [..., N, I]. Initialised and stored as nnx.Linear."""

    def __call__(self, inputs: jax.Array, out_sharding: Any = None) -> jax.Array:
        """Return inputs @ kernel + bias. Raises ValueError for an out_sharding: it follows from the arrays."""
        if out_sharding is not None:
            raise ValueError("out_sharding is not supported")
        return affine(inputs, self.kernel[...], None if self.bias is None else self.bias[...])
