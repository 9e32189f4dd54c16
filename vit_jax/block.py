"""The parts of a vision transformer: patch embedding, MLP, block.

Letters: B batch, N tokens, H heads, D width, h x w image.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from vit_jax._xla import materialize, recompute_activation
from vit_jax.attention import Key, MultiHeadAttention, Norm, dropout
from vit_jax.config import ViTConfig
from vit_jax.edits import NO_EDIT, Edit, scale_branch
from vit_jax.linear import Linear, affine
from vit_jax.position import NO_POSITIONS, BlockPositions, count_distances

Images = Float[Array | np.ndarray, "b h w c"]


def gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return x Phi(x), exact (https://arxiv.org/abs/1606.08415). By erf as in torch; jax's own uses the slower erfc."""
    exact = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return (0.5 * exact * (1.0 + jax.lax.erf(exact * 0.5**0.5))).astype(x.dtype)


def relu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return max(x, 0), with gradient 0 at 0 as in torch. Written out for OpenVINO, as swiglu."""
    return jax.lax.select(x > 0, x, jnp.zeros_like(x))


def swiglu(x: Float[Array, "... n"]) -> Float[Array, "... n//2"]:
    """Return silu(gate) * value, the two halves of x (https://arxiv.org/abs/2002.05202).

    Written out, since jax.nn.silu is jitted and OpenVINO does not convert a nested jit.
    """
    gate, value = x[..., : x.shape[-1] // 2], x[..., x.shape[-1] // 2 :]
    return gate * jax.nn.sigmoid(gate) * value


ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": gelu,  # exact: torch's default, not jax's
    "gelu_tanh": partial(jax.nn.gelu, approximate=True),
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),  # OpenAI's CLIP
    "relu": relu,
    "swiglu": swiglu,
    "tanh": jnp.tanh,  # of the layer before the head alone
}


def split_key(key: Key | None, count: int) -> Sequence[Key | None]:
    """Split a key into `count` keys; None into `count` Nones."""
    return [None] * count if key is None else list(jax.random.split(key, count))


def make_norm(config: ViTConfig, rngs: nnx.Rngs, size: int = 0) -> Norm:
    """Return a norm over `size` (0: the width) of the config's kind and eps."""
    if config.norm == "rms":  # https://arxiv.org/abs/1910.07467
        return nnx.RMSNorm(size or config.width, epsilon=config.norm_eps, rngs=rngs)
    # The fast variance E[x^2] - E[x]^2 loses digits when the mean is large; torch does not use it.
    return nnx.LayerNorm(size or config.width, epsilon=config.norm_eps, use_fast_variance=False, rngs=rngs)


class PatchEmbed(nnx.Module):
    """Embedding of non-overlapping patches. The kernel is [ph, pw, channels, D], applied as one matrix product."""

    def __init__(self, config: ViTConfig, *, rngs: nnx.Rngs):
        ph, pw = config.patch_size
        init = jax.nn.initializers.lecun_normal(in_axis=(0, 1, 2), out_axis=3)
        self.kernel = nnx.Param(init(rngs.params(), (ph, pw, config.in_channels, config.width)))
        if config.patch_bias:
            self.bias = nnx.Param(jnp.zeros((config.width,)))
        if config.patch_norms:
            self.norm_pixels = make_norm(config, rngs, ph * pw * config.in_channels)
        if config.patch_norms or config.embed_norm:
            self.norm_tokens = make_norm(config, rngs)
        self.has_bias, self.norms_pixels = config.patch_bias, config.patch_norms
        self.norms_tokens = config.patch_norms or config.embed_norm

    def __call__(self, images: Images) -> Float[Array, "b n d"]:
        """Return the patches' tokens in row order; the patch must divide the image."""
        ph, pw, c, d = self.kernel.shape
        b, h, w, _ = images.shape
        x = jnp.asarray(images, self.kernel.dtype).reshape(b, h // ph, ph, w // pw, pw, c)
        x = x.transpose(0, 1, 3, 2, 4, 5)  # [B, gh, gw, ph, pw, c]
        x = x.reshape(b, (h // ph) * (w // pw), ph * pw * c)
        x = self.norm_pixels(x) if self.norms_pixels else x
        x = affine(x, self.kernel[...].reshape(ph * pw * c, d), self.bias[...] if self.has_bias else None)
        return self.norm_tokens(x) if self.norms_tokens else x


class Mlp(nnx.Module):
    """Two dense layers with an activation between them, and with mlp_norm a norm after it."""

    def __init__(self, config: ViTConfig, *, rngs: nnx.Rngs):
        init, bias_init = jax.nn.initializers.xavier_uniform(), jax.nn.initializers.normal(1e-6)
        up = config.mlp_dim * (2 if config.activation == "swiglu" else 1)
        options: dict[str, Any] = dict(use_bias=config.mlp_bias, kernel_init=init, bias_init=bias_init, rngs=rngs)
        self.up = Linear(config.width, up, **options)
        self.down = Linear(config.mlp_dim, config.width, **options)
        if config.mlp_norm:
            self.norm = make_norm(config, rngs, config.mlp_dim)
        self.activation, self.has_norm = config.activation, config.mlp_norm

    def __call__(self, x: Float[Array, "b n d"], *, workarounds: bool = True) -> Float[Array, "b n d"]:
        """Return down(norm(activation(up(x))))."""
        norm = self.norm if self.has_norm else None
        return recompute_activation(_activate_and_project, workarounds)(self.activation, self.down, norm, self.up(x))


def _activate_and_project(
    activation: str, down: nnx.Linear, norm: Norm | None, x: Float[Array, "b n m"]
) -> Float[Array, "b n d"]:
    hidden = ACTIVATIONS[activation](x)
    return down(hidden if norm is None else norm(hidden))


def drop_path(branch: Float[Array, "b n d"], rate: Float[Array, ""] | None, key: Key | None) -> Float[Array, "b n d"]:
    """Stochastic depth (https://arxiv.org/abs/1603.09382): zero the branch of a random fraction `rate` of the images.

    As timm's: drawn per image, the rest scaled by 1 / (1 - rate). Identity without a rate or a key.
    """
    if rate is None or key is None:
        return branch
    keep = 1 - rate.astype(jnp.promote_types(branch.dtype, jnp.float32))  # bfloat16 has no 0.997, nor draws for it
    kept = jax.random.bernoulli(jax.random.fold_in(key, 1), keep, (branch.shape[0], 1, 1))
    return jnp.where(kept, (branch / keep).astype(branch.dtype), jnp.zeros((), branch.dtype))


class Block(nnx.Module):
    """Two residual branches: attention, then the MLP.

    x + scale * branch(norm(x)), or norm(x + scale * branch(x)) with norm_position "post" (torch's
    nn.TransformerEncoderLayer with norm_first=False). The scales, [D], exist only with layer_scale; the table of the
    attention's bias, [T, H], only with relative_bias "blocks".
    """

    def __init__(self, config: ViTConfig, *, rngs: nnx.Rngs):
        self.norm1 = make_norm(config, rngs)
        self.attn = MultiHeadAttention(
            config.width,
            config.num_heads,
            heads_width=config.heads_width,
            qkv_bias=config.qkv_bias,
            key_bias=config.key_bias,
            out_bias=config.out_bias,
            norm=make_norm(config, rngs, config.heads_width) if config.attention_norm else None,
            dropout_rate=config.attention_dropout,
            rngs=rngs,
        )
        self.norm2 = make_norm(config, rngs)
        self.mlp = Mlp(config, rngs=rngs)
        if config.layer_scale:
            # https://arxiv.org/abs/2103.17239; 1e-5 as DINOv2 starts it.
            self.scale1 = nnx.Param(jnp.full((config.width,), 1e-5))
            self.scale2 = nnx.Param(jnp.full((config.width,), 1e-5))
        self.has_relative_bias = config.relative_bias == "blocks"
        if self.has_relative_bias:
            self.relative_bias = nnx.Param(jnp.zeros((count_distances(config.grid), config.num_heads)))
        self.layer_scale = config.layer_scale
        self.norm_position = config.norm_position
        self.dropout_rate = config.dropout

    def __call__(
        self,
        x: Float[Array, "b n d"],
        *,
        positions: BlockPositions = NO_POSITIONS,
        return_weights: bool = False,
        perturbation: Float[Array, "b h q n"] | None = None,
        key: Key | None = None,
        drop_path_rate: Float[Array, ""] | None = None,
        num_queries: int | None = None,
        edit: Edit = NO_EDIT,
        workarounds: bool = True,
    ) -> tuple[Float[Array, "b q d"], Float[Array, "b h q n"] | None]:
        """Return the block's output, and its attention weights when asked for; see attend() for the perturbation.

        positions:      of the tokens.
        key:            turns dropout and drop path on.
        drop_path_rate: probability, per image, that a branch is dropped.
        num_queries:    compute the output of only the first so many tokens.
        edit:           of the heads and the branches; see Edit.of_block.
        """
        attn_key, out_key, mlp_key = split_key(key, 3)
        attended, weights = self.attention_branch(
            x,
            positions=positions,
            return_weights=return_weights,
            perturbation=perturbation,
            key=attn_key,
            num_queries=num_queries,
            edit=edit,
            workarounds=workarounds,
        )
        attended = scale_branch(attended, edit, 0)
        attended = drop_path(dropout(attended, self.dropout_rate, out_key), drop_path_rate, out_key)
        x = materialize(self._norm_at("post", self.norm1, x[:, :num_queries] + attended), workarounds)
        hidden = scale_branch(self.mlp_branch(x, workarounds=workarounds), edit, 1)
        hidden = drop_path(dropout(hidden, self.dropout_rate, mlp_key), drop_path_rate, mlp_key)
        return materialize(self._norm_at("post", self.norm2, x + hidden), workarounds), weights

    def attention_branch(
        self, x: Float[Array, "b n d"], *, positions: BlockPositions = NO_POSITIONS, **options: Any
    ) -> tuple[Float[Array, "b q d"], Float[Array, "b h q n"] | None]:
        """Return what the attention adds to the tokens, and its weights; options are those of MultiHeadAttention."""
        attended, weights = self.attn(
            self._norm_at("pre", self.norm1, x),
            rotation=positions.rotation,
            bias=positions.bias_from(self.relative_bias[...] if self.has_relative_bias else None),
            **options,
        )
        return attended * self.scale1[...].reshape(1, 1, -1) if self.layer_scale else attended, weights

    def score_factors(
        self, x: Float[Array, "b n d"], *, positions: BlockPositions = NO_POSITIONS
    ) -> tuple[Float[Array, "b n h k"], Float[Array, "b n h k"]]:
        """Return the queries and the keys as the attention scores use them: after the norm and the rotation."""
        q, k = self.attn.project(self._norm_at("pre", self.norm1, x), "qk")
        rotation = positions.rotation
        return (q, k) if rotation is None else (rotation(q), rotation(k))

    def mlp_branch(self, x: Float[Array, "b n d"], *, workarounds: bool = True) -> Float[Array, "b n d"]:
        """Return what the MLP adds to the tokens that follow the attention."""
        hidden = self.mlp(self._norm_at("pre", self.norm2, x), workarounds=workarounds)
        return hidden * self.scale2[...].reshape(1, 1, -1) if self.layer_scale else hidden

    def _norm_at(self, position: str, norm: Norm, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        """Return norm(x) if the block has its norms at this position, else x."""
        return norm(x) if self.norm_position == position else x
