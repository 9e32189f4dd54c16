"""Pooling by attention: a learned probe attends to the tokens.

SigLIP's (https://arxiv.org/abs/2303.15343; big_vision's MAPHead) projects the probe to a query and ends with
x + mlp(norm(x)). AIMv2's (https://arxiv.org/abs/2411.14402), with plain_pool, takes the probe as the query and has no
MLP.

Letters: B batch, N tokens, H heads, D width.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from vit_jax._xla import split_last_axis
from vit_jax.attention import attend
from vit_jax.block import Mlp, make_norm
from vit_jax.config import ViTConfig
from vit_jax.linear import affine


class AttentionPool(nnx.Module):
    """[B, N, D] -> [B, D]; qkv_kernel's columns are (q | k | v), or (k | v) with plain_pool, heads within."""

    def __init__(self, config: ViTConfig, *, rngs: nnx.Rngs):
        d, self.is_plain = config.width, config.plain_pool
        parts = 2 if self.is_plain else 3
        self.probe = nnx.Param(0.02 * jax.random.normal(rngs.params(), (1, 1, d)))
        init = jax.nn.initializers.variance_scaling(1.0, "fan_in", "uniform")
        self.qkv_kernel = nnx.Param(init(rngs.params(), (d, parts * d)))
        self.has_bias = config.qkv_bias or not self.is_plain
        if self.has_bias:
            self.qkv_bias = nnx.Param(jnp.zeros((parts * d,)))
        self.out = nnx.Linear(d, d, rngs=rngs)
        if not self.is_plain:
            self.norm = make_norm(config, rngs)
            self.mlp = Mlp(config, rngs=rngs)
        self.num_heads = config.pool_heads or config.num_heads

    def __call__(self, x: Float[Array, "b n d"], *, workarounds: bool = True) -> Float[Array, "b d"]:
        """Return what the probe attends to, through the MLP if there is one."""
        b, _, d = x.shape
        query, kernel, bias = self.probe[...], self.qkv_kernel[...], self.qkv_bias[...] if self.has_bias else None
        if not self.is_plain:
            query = affine(query, kernel[:, :d], None if bias is None else bias[:d])
            kernel, bias = kernel[:, d:], None if bias is None else bias[d:]
        key, value = split_last_axis(affine(x, kernel, bias), 2, workarounds)
        query = jnp.broadcast_to(query, (b, 1, d))
        heads = (b, -1, self.num_heads, d // self.num_heads)
        attended, _ = attend(query.reshape(heads), key.reshape(heads), value.reshape(heads), workarounds=workarounds)
        pooled = self.out(attended.reshape(b, 1, d))
        return (pooled if self.is_plain else pooled + self.mlp(self.norm(pooled), workarounds=workarounds))[:, 0]
