"""Pooling by attention, as SigLIP does (https://arxiv.org/abs/2303.15343; big_vision's MAPHead).

A learned probe attends to the tokens; then x + mlp(norm(x)).

Letters: B batch, N tokens, H heads, D width.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from vit_jax._xla import split_last_axis
from vit_jax.attention import attend
from vit_jax.block import Mlp, layer_norm
from vit_jax.config import ViTConfig


class AttentionPool(nnx.Module):
    """[B, N, D] -> [B, D]; qkv_kernel's columns are (q | k | v), heads within."""

    def __init__(self, config: ViTConfig, *, rngs: nnx.Rngs):
        d = config.width
        self.probe = nnx.Param(0.02 * jax.random.normal(rngs.params(), (1, 1, d)))
        init = jax.nn.initializers.variance_scaling(1.0, "fan_in", "uniform")
        self.qkv_kernel = nnx.Param(init(rngs.params(), (d, 3 * d)))
        self.qkv_bias = nnx.Param(jnp.zeros((3 * d,)))
        self.out = nnx.Linear(d, d, rngs=rngs)
        self.norm = layer_norm(config, rngs)
        self.mlp = Mlp(config, rngs=rngs)
        self.num_heads = config.pool_heads or config.num_heads

    def __call__(self, x: Float[Array, "b n d"], *, workarounds: bool = True) -> Float[Array, "b d"]:
        """Return what the probe attends to, through the MLP."""
        b, _, d = x.shape
        kernel, bias = self.qkv_kernel[...], self.qkv_bias[...].reshape(1, 1, 3 * d)
        query = jnp.broadcast_to(self.probe[...] @ kernel[:, :d] + bias[..., :d], (b, 1, d))
        key, value = split_last_axis(x @ kernel[:, d:] + bias[..., d:], 2, workarounds)
        heads = (b, -1, self.num_heads, d // self.num_heads)
        attended, _ = attend(query.reshape(heads), key.reshape(heads), value.reshape(heads), workarounds=workarounds)
        pooled = self.out(attended.reshape(b, 1, d))
        return (pooled + self.mlp(self.norm(pooled), workarounds=workarounds))[:, 0]
