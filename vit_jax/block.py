"""What a vision transformer is made of: patch embedding, MLP, block.

Letters: B batch, N tokens, H heads, D width, h x w image.
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from vit_jax.attention import Key, MultiHeadAttention, dropout
from vit_jax.config import ViTConfig
from vit_jax.execution import materialize

Images = Float[Array | np.ndarray, "b h w c"]


def gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """x Phi(x), exact (https://arxiv.org/abs/1606.08415), by erf as in torch: jax's erfc takes thrice the time."""
    exact = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return (0.5 * exact * (1.0 + jax.lax.erf(exact * 0.5**0.5))).astype(x.dtype)


ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": gelu,  # exact: torch's default, not jax's
    "gelu_tanh": partial(jax.nn.gelu, approximate=True),
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),  # OpenAI's CLIP
    "swiglu": lambda x: jax.nn.silu(x[..., : x.shape[-1] // 2]) * x[..., x.shape[-1] // 2 :],  # arXiv 2002.05202
}


def split_key(key: Key | None, count: int) -> Sequence[Key | None]:
    """`count` keys from one, or as many Nones."""
    return [None] * count if key is None else list(jax.random.split(key, count))


def layer_norm(config: ViTConfig, rngs: nnx.Rngs, size: int = 0) -> nnx.LayerNorm:
    """A LayerNorm over the width, or another size, with the config's eps."""
    # The fast variance E[x^2] - E[x]^2 loses digits where the mean is large; torch does not use it.
    return nnx.LayerNorm(size or config.width, epsilon=config.norm_eps, use_fast_variance=False, rngs=rngs)


class PatchEmbed(nnx.Module):
    """Non-overlapping patches to tokens. The kernel is [ph, pw, channels, D], applied as one matrix product."""

    def __init__(self, config: ViTConfig, *, rngs: nnx.Rngs):
        ph, pw = config.patch_size
        init = jax.nn.initializers.lecun_normal(in_axis=(0, 1, 2), out_axis=3)
        self.kernel = nnx.Param(init(rngs.params(), (ph, pw, config.in_channels, config.width)))
        if config.patch_bias:
            self.bias = nnx.Param(jnp.zeros((config.width,)))
        if config.patch_norms:
            self.norm_pixels = layer_norm(config, rngs, ph * pw * config.in_channels)
            self.norm_tokens = layer_norm(config, rngs)
        self.has_bias, self.has_norms = config.patch_bias, config.patch_norms

    def __call__(self, images: Images) -> Float[Array, "b n d"]:
        """Tokens in row order; the patch must divide the image."""
        ph, pw, c, d = self.kernel.shape
        b, h, w, _ = images.shape
        x = jnp.asarray(images).reshape(b, h // ph, ph, w // pw, pw, c)
        x = x.transpose(0, 1, 3, 2, 4, 5)  # [B, gh, gw, ph, pw, c]
        x = x.reshape(b, (h // ph) * (w // pw), ph * pw * c)
        x = self.norm_pixels(x) if self.has_norms else x
        x = x @ self.kernel[...].reshape(ph * pw * c, d)
        x = x + self.bias[...].reshape(1, 1, d) if self.has_bias else x
        return self.norm_tokens(x) if self.has_norms else x


class Mlp(nnx.Module):
    """Two dense layers with an activation between them."""

    def __init__(self, config: ViTConfig, *, rngs: nnx.Rngs):
        init, bias_init = jax.nn.initializers.xavier_uniform(), jax.nn.initializers.normal(1e-6)
        up = config.mlp_dim * (2 if config.activation == "swiglu" else 1)
        self.up = nnx.Linear(config.width, up, kernel_init=init, bias_init=bias_init, rngs=rngs)
        self.down = nnx.Linear(config.mlp_dim, config.width, kernel_init=init, bias_init=bias_init, rngs=rngs)
        self.activation = config.activation

    def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        """x, through up, the activation and down."""
        return _through(self.activation, self.down, self.up(x))


@partial(jax.checkpoint, static_argnums=0)
def _through(activation: str, down: nnx.Linear, x: Float[Array, "b n m"]) -> Float[Array, "b n d"]:
    """The activation, then down. The backward pass works the activation out again: cheaper than to keep it."""
    return down(ACTIVATIONS[activation](x))


def passed_by(branch: Float[Array, "b n d"], rate: Float[Array, ""] | None, key: Key | None) -> Float[Array, "b n d"]:
    """Stochastic depth (https://arxiv.org/abs/1603.09382): a branch is 0 for a share of images, scaled for the rest.

    As timm's drop_path has it: per image, scaled by 1 / (1 - rate). No rate or no key changes nothing.
    """
    if rate is None or key is None:
        return branch
    keep = 1 - rate.astype(jnp.promote_types(branch.dtype, jnp.float32))  # bfloat16 has no 0.997, nor draws for it
    stays = jax.random.bernoulli(jax.random.fold_in(key, 1), keep, (branch.shape[0], 1, 1))
    return jnp.where(stays, (branch / keep).astype(branch.dtype), jnp.zeros((), branch.dtype))


class Block(nnx.Module):
    """x + scale1 * attention(norm(x)), then x + scale2 * mlp(norm(x)); the scales, [D], only with layer_scale."""

    def __init__(self, config: ViTConfig, *, rngs: nnx.Rngs):
        self.norm1 = layer_norm(config, rngs)
        self.attn = MultiHeadAttention(
            config.width,
            config.num_heads,
            heads_width=config.heads_width,
            qkv_bias=config.qkv_bias,
            out_bias=config.out_bias,
            dropout_rate=config.attention_dropout,
            rngs=rngs,
        )
        self.norm2 = layer_norm(config, rngs)
        self.mlp = Mlp(config, rngs=rngs)
        if config.layer_scale:
            # https://arxiv.org/abs/2103.17239; 1e-5 as DINOv2 starts it.
            self.scale1 = nnx.Param(jnp.full((config.width,), 1e-5))
            self.scale2 = nnx.Param(jnp.full((config.width,), 1e-5))
        self.layer_scale = config.layer_scale
        self.dropout_rate = config.dropout

    def __call__(
        self,
        x: Float[Array, "b n d"],
        *,
        return_weights: bool = False,
        perturbation: Float[Array, "b h n n"] | None = None,
        key: Key | None = None,
        drop_path: Float[Array, ""] | None = None,
        first: int | None = None,
    ) -> tuple[Float[Array, "b q d"], Float[Array, "b h q n"] | None]:
        """The block's output, and its attention weights when asked for; see attend() for the perturbation.

        drop_path: each image passes either branch by with this probability, where there is a key.
        first:     only so many tokens, from the first on, are answered.
        """
        attn_key, out_key, mlp_key = split_key(key, 3)
        mixed, weights = self.attn(
            self.norm1(x), return_weights=return_weights, perturbation=perturbation, key=attn_key, first=first
        )
        if self.layer_scale:
            mixed = mixed * self.scale1[...].reshape(1, 1, -1)
        x = materialize(x[:, :first] + passed_by(dropout(mixed, self.dropout_rate, out_key), drop_path, out_key))
        changed = self.mlp(self.norm2(x))
        if self.layer_scale:
            changed = changed * self.scale2[...].reshape(1, 1, -1)
        return materialize(x + passed_by(dropout(changed, self.dropout_rate, mlp_key), drop_path, mlp_key)), weights
