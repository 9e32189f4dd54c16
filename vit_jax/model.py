"""The vision transformer (https://arxiv.org/abs/2010.11929).

Agrees with PyTorch-Pretrained-ViT 0.0.7: pre-norm blocks, exact GELU, LayerNorm eps 1e-6, [class] token first, a
head on the normalised [class] token. Differs knowingly: one matrix product for q, k and v, the patch embedding as
a reshape and a matrix product, images channels last, and the position grid is resized on the fly (in the
checkpoint's own convention) when an image has another size.

Letters: B batch, N tokens, H heads, L layers, D width, C classes, h x w image, gh x gw grid of patches.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from vit_jax.attention import Key, MultiHeadAttention, dropout
from vit_jax.config import ViTConfig
from vit_jax.errors import InputError
from vit_jax.posemb import resize_position_embedding

Images = Float[Array | np.ndarray, "b h w c"]
HEAD_FUSIONS: dict[str, Callable] = {"mean": jnp.mean, "max": jnp.max, "min": jnp.min}


class ViTOutput(NamedTuple):
    """What one forward pass answers.

    logits:    [B, C]
    features:  [B, N, D], every token after the final norm
    attention: [L, B, H, N, N], rows (queries) sum to 1; [L, B, N, N] where heads were fused
    """

    logits: Float[Array, "b c"]
    features: Float[Array, "b n d"]
    attention: Float[Array, "..."]


def _split(key: Key | None, count: int) -> Sequence[Key | None]:
    return [None] * count if key is None else list(jax.random.split(key, count))


def _norm(config: ViTConfig, rngs: nnx.Rngs) -> nnx.LayerNorm:
    # The fast variance E[x^2] - E[x]^2 loses digits where the mean is large; torch does not use it.
    return nnx.LayerNorm(config.width, epsilon=config.norm_eps, use_fast_variance=False, rngs=rngs)


class PatchEmbed(nnx.Module):
    """Non-overlapping patches to tokens. The kernel is [ph, pw, channels, D], applied as one matrix product."""

    def __init__(self, config: ViTConfig, *, rngs: nnx.Rngs):
        ph, pw = config.patch_size
        init = jax.nn.initializers.lecun_normal(in_axis=(0, 1, 2), out_axis=3)
        self.kernel = nnx.Param(init(rngs.params(), (ph, pw, config.in_channels, config.width)))
        self.bias = nnx.Param(jnp.zeros((config.width,)))

    def __call__(self, images: Images) -> Float[Array, "b n d"]:
        """Tokens in row order; the patch must divide the image."""
        ph, pw, c, d = self.kernel.shape
        b, h, w, _ = images.shape
        x = jnp.asarray(images).reshape(b, h // ph, ph, w // pw, pw, c)
        x = x.transpose(0, 1, 3, 2, 4, 5)  # [B, gh, gw, ph, pw, c]
        x = x.reshape(b, (h // ph) * (w // pw), ph * pw * c)
        return x @ self.kernel[...].reshape(ph * pw * c, d) + self.bias[...].reshape(1, 1, d)


class Mlp(nnx.Module):
    """Two dense layers with the exact (erf) GELU between them."""

    def __init__(self, config: ViTConfig, *, rngs: nnx.Rngs):
        init, bias_init = jax.nn.initializers.xavier_uniform(), jax.nn.initializers.normal(1e-6)
        self.up = nnx.Linear(config.width, config.mlp_dim, kernel_init=init, bias_init=bias_init, rngs=rngs)
        self.down = nnx.Linear(config.mlp_dim, config.width, kernel_init=init, bias_init=bias_init, rngs=rngs)

    def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        """x, through up, GELU and down."""
        return self.down(jax.nn.gelu(self.up(x), approximate=False))


class Block(nnx.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: ViTConfig, *, rngs: nnx.Rngs):
        self.norm1 = _norm(config, rngs)
        self.attn = MultiHeadAttention(config.width, config.num_heads, dropout_rate=config.attention_dropout, rngs=rngs)
        self.norm2 = _norm(config, rngs)
        self.mlp = Mlp(config, rngs=rngs)
        self.dropout_rate = config.dropout

    def __call__(
        self, x: Float[Array, "b n d"], *, return_weights: bool = False, key: Key | None = None
    ) -> tuple[Float[Array, "b n d"], Float[Array, "b h n n"] | None]:
        """The block's output, and its attention weights when asked for."""
        attn_key, out_key, mlp_key = _split(key, 3)
        mixed, weights = self.attn(self.norm1(x), return_weights=return_weights, key=attn_key)
        x = x + dropout(mixed, self.dropout_rate, out_key)
        x = x + dropout(self.mlp(self.norm2(x)), self.dropout_rate, mlp_key)
        return x, weights


class VisionTransformer(nnx.Module):
    """A vision transformer classifier; a pytree that holds parameters only."""

    def __init__(self, config: ViTConfig, *, rngs: nnx.Rngs):
        d = config.width
        self.config = config
        self.patch_embed = PatchEmbed(config, rngs=rngs)
        self.class_token = nnx.Param(jnp.zeros((1, 1, d)))
        self.position_embedding = nnx.Param(0.02 * jax.random.normal(rngs.params(), (1, config.num_tokens, d)))
        self.blocks = nnx.List([Block(config, rngs=rngs) for _ in range(config.depth)])
        self.norm = _norm(config, rngs)
        self.head = nnx.Linear(d, config.num_classes, kernel_init=jax.nn.initializers.zeros, rngs=rngs)

    def __call__(self, images: Images, *, key: Key | None = None) -> Float[Array, "b classes"]:
        """Logits [B, C] of normalised images [B, h, w, channels]; a key turns dropout on.

        Images may have any size that the patch divides: the position grid is resized to it.
        Raises InputError for another number of channels or a size that the patch does not divide.
        """
        x = self.embed(images)
        for block, block_key in zip(self.blocks, _split(key, len(self.blocks)), strict=True):
            x, _ = block(x, key=block_key)
        return self.classify(self.norm(x))

    def embed(self, images: Images) -> Float[Array, "b n d"]:
        """The token sequence that enters the first block: [class], then the patches, positions added."""
        b, h, w, channels = images.shape
        if channels != self.config.in_channels:
            raise InputError(f"images have {channels} channels in their last axis, not {self.config.in_channels}")
        positions = resize_position_embedding(
            self.position_embedding[...],
            self.config.grid,
            self.config.grid_for((h, w)),
            num_prefix=self.config.num_prefix,
            method=self.config.posemb_resize,
        )
        patches = self.patch_embed(images)
        prefix = jnp.broadcast_to(self.class_token[...], (b, 1, self.config.width)).astype(patches.dtype)
        return jnp.concatenate([prefix, patches], axis=1) + positions

    def classify(self, features: Float[Array, "b n d"]) -> Float[Array, "b classes"]:
        """Logits from the normalised tokens: the head on [class]."""
        return self.head(features[:, 0])


def _chosen_layers(layers: Sequence[int] | None, depth: int) -> list[int]:
    if layers is None:
        return list(range(depth))
    outside = [layer for layer in layers if not -depth <= layer < depth]
    if outside:
        raise InputError(f"no layer {outside[0]}: the model has {depth}, counted 0 to {depth - 1} or from the end")
    return [layer % depth for layer in layers]


def forward_with_attention(
    model: VisionTransformer,
    images: Images,
    *,
    layers: Sequence[int] | None = None,
    head_fusion: str | None = None,
) -> ViTOutput:
    """The forward pass with the attention weights it used: a pure function, no hooks.

    layers: which ones to return, in the order given (negative counts from the end); None returns all.
    head_fusion: "mean", "max" or "min" fuses the heads inside each layer, so that L x B x H x N x N is never held.
    Layers that are not asked for stay on the fused path.

    Raises InputError for an unknown layer or fusion, and as the model does.
    """
    if head_fusion is not None and head_fusion not in HEAD_FUSIONS:
        raise InputError(f"unknown head_fusion {head_fusion!r}: one of {', '.join(HEAD_FUSIONS)}, or None")
    chosen = _chosen_layers(layers, len(model.blocks))
    kept: dict[int, Float[Array, "..."]] = {}
    x = model.embed(images)
    for index, block in enumerate(model.blocks):
        x, weights = block(x, return_weights=index in chosen)
        if weights is not None:
            kept[index] = weights if head_fusion is None else HEAD_FUSIONS[head_fusion](weights, axis=1)
    features = model.norm(x)
    b, n, _ = features.shape
    none_chosen = jnp.zeros((0, b, *([] if head_fusion else [model.config.num_heads]), n, n), features.dtype)
    attention = jnp.stack([kept[layer] for layer in chosen]) if chosen else none_chosen
    return ViTOutput(model.classify(features), features, attention)


def count_parameters(model: nnx.Module) -> int:
    """The number of parameters, of a model or of its shapes (jax.eval_shape)."""
    return sum(leaf.size for leaf in jax.tree.leaves(model))
