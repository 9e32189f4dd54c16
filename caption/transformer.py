"""The pre-norm encoder and decoder layers of DETR (https://arxiv.org/abs/2005.12872) as CATR has them.

Positions are added to queries and keys in every layer, never to values.

Letters: B batch, S image tokens, T text tokens, M keys, H heads, K size of a head, D width.
"""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from caption.config import CaptionConfig
from vit_jax._xla import materialize
from vit_jax.attention import Key, MultiHeadAttention, attend, dropout
from vit_jax.block import split_key

Tokens = Float[Array, "b n d"]
Positions = Float[Array, "#b n d"]
Weights = Float[Array, "b h n m"]
CrossWeights = Float[Array, "b h n s"]
Mask = Bool[Array, "#b #h #n m"]
CrossMask = Bool[Array, "#b #h #n s"]


class KeysValues(NamedTuple):
    """What queries meet in one layer."""

    keys: Float[Array, "b m h k"]
    values: Float[Array, "b m h k"]


def layer_norm(config: CaptionConfig, rngs: nnx.Rngs, *, eps: float | None = None) -> nnx.LayerNorm:
    """A LayerNorm over the width, with the config's eps unless another is given."""
    return nnx.LayerNorm(
        config.width, epsilon=config.norm_eps if eps is None else eps, use_fast_variance=False, rngs=rngs
    )


def attention(config: CaptionConfig, rngs: nnx.Rngs) -> MultiHeadAttention:
    """An attention of the config's width and heads."""
    return MultiHeadAttention(config.width, config.num_heads, dropout_rate=config.dropout, rngs=rngs)


def attend_and_project(
    attn: MultiHeadAttention,
    query: Float[Array, "b n h k"],
    met: KeysValues,
    mask: Mask,
    *,
    return_weights: bool,
    perturbation: Weights | None,
    key: Key | None,
) -> tuple[Tokens, Weights | None]:
    """What queries gather from keys and values, joined; the weights when asked for."""
    mixed, weights = attend(
        query,
        met.keys,
        met.values,
        mask=mask,
        return_weights=return_weights,
        perturbation=perturbation,
        dropout_rate=attn.dropout_rate,
        dropout_key=key,
    )
    return attn.merge_heads(mixed), weights


class FeedForward(nnx.Module):
    """Two dense layers with a ReLU between them."""

    def __init__(self, config: CaptionConfig, *, rngs: nnx.Rngs):
        init = jax.nn.initializers.xavier_uniform()
        self.up = nnx.Linear(config.width, config.mlp_dim, kernel_init=init, rngs=rngs)
        self.down = nnx.Linear(config.mlp_dim, config.width, kernel_init=init, rngs=rngs)
        self.dropout_rate = config.dropout

    def __call__(self, x: Tokens, *, key: Key | None = None) -> Tokens:
        """x, through up, ReLU, dropout and down."""
        return self.down(dropout(jax.nn.relu(self.up(x)), self.dropout_rate, key))


class EncoderLayer(nnx.Module):
    """x + attention(norm1(x)), then x + mlp(norm2(x)), over the image's tokens."""

    def __init__(self, config: CaptionConfig, *, rngs: nnx.Rngs):
        self.norm1 = layer_norm(config, rngs)
        self.attn = attention(config, rngs)
        self.norm2 = layer_norm(config, rngs)
        self.mlp = FeedForward(config, rngs=rngs)
        self.dropout_rate = config.dropout

    def __call__(
        self,
        x: Tokens,
        positions: Tokens,
        mask: Mask,
        *,
        return_weights: bool = False,
        perturbation: Weights | None = None,
        key: Key | None = None,
    ) -> tuple[Tokens, Weights | None]:
        """The layer's output, and its attention weights [B, H, S, S] when asked for."""
        attn_key, mixed_key, inner_key, mlp_key = split_key(key, 4)
        normed = self.norm1(x)
        query, keys = self.attn.project(normed + positions, "qk")
        met = KeysValues(keys, *self.attn.project(normed, "v"))
        mixed, weights = attend_and_project(
            self.attn, query, met, mask, return_weights=return_weights, perturbation=perturbation, key=attn_key
        )
        x = materialize(x + dropout(mixed, self.dropout_rate, mixed_key))
        return materialize(x + dropout(self.mlp(self.norm2(x), key=inner_key), self.dropout_rate, mlp_key)), weights


class DecoderLayerOutput(NamedTuple):
    """What one decoder layer answers.

    text:            [B, T, D]
    self_weights:    [B, H, T, T] when asked for
    cross_weights:   [B, H, T, S] when asked for
    """

    text: Tokens
    self_weights: Weights | None
    cross_weights: CrossWeights | None


class DecoderLayer(nnx.Module):
    """Self-attention over the text, attention to the image, MLP; a norm before each, a sum after each."""

    def __init__(self, config: CaptionConfig, *, rngs: nnx.Rngs):
        self.norm1 = layer_norm(config, rngs)
        self.attn = attention(config, rngs)
        self.norm2 = layer_norm(config, rngs)
        self.cross = attention(config, rngs)
        self.norm3 = layer_norm(config, rngs)
        self.mlp = FeedForward(config, rngs=rngs)
        self.dropout_rate = config.dropout

    def meet(self, memory: Tokens, positions: Tokens) -> KeysValues:
        """The image's keys and values in this layer: the same for every word."""
        return KeysValues(*self.cross.project(memory + positions, "k"), *self.cross.project(memory, "v"))

    def __call__(
        self,
        x: Tokens,
        positions: Positions,
        self_mask: Mask,
        image: KeysValues,
        image_mask: CrossMask,
        *,
        return_weights: bool = False,
        perturbations: tuple[Weights | None, CrossWeights | None] | None = None,
        key: Key | None = None,
    ) -> DecoderLayerOutput:
        """The layer's output for tokens x at their positions. decoding.py has the same for one token after another.

        perturbations are those of self- and cross-attention's weights.
        """
        attn_key, mixed_key, cross_key, seen_key, inner_key, mlp_key = split_key(key, 6)
        of_self, of_cross = perturbations if perturbations is not None else (None, None)
        normed = self.norm1(x)
        query, keys = self.attn.project(normed + positions, "qk")
        met = KeysValues(keys, *self.attn.project(normed, "v"))
        mixed, self_weights = attend_and_project(
            self.attn, query, met, self_mask, return_weights=return_weights, perturbation=of_self, key=attn_key
        )
        x = materialize(x + dropout(mixed, self.dropout_rate, mixed_key))
        (query,) = self.cross.project(self.norm2(x) + positions, "q")
        seen, cross_weights = attend_and_project(
            self.cross, query, image, image_mask, return_weights=return_weights, perturbation=of_cross, key=cross_key
        )
        x = materialize(x + dropout(seen, self.dropout_rate, seen_key))
        x = materialize(x + dropout(self.mlp(self.norm3(x), key=inner_key), self.dropout_rate, mlp_key))
        return DecoderLayerOutput(x, self_weights, cross_weights)


class WordEmbedding(nnx.Module):
    """norm(word + position), and the positions again for every layer's queries and keys."""

    def __init__(self, config: CaptionConfig, *, rngs: nnx.Rngs):
        init = jax.nn.initializers.xavier_uniform()
        self.words = nnx.Param(init(rngs.params(), (config.vocab_size, config.width)))
        self.positions = nnx.Param(init(rngs.params(), (config.max_positions, config.width)))
        self.norm = layer_norm(config, rngs, eps=config.embedding_eps)
        self.dropout_rate = config.dropout
        self.pad_token = config.pad_token

    def __call__(
        self, tokens: Int[Array, "b t"], positions: Float[Array, "1 t d"], *, key: Key | None = None
    ) -> Float[Array, "b t d"]:
        """The tokens that enter the first layer. No gradient reaches the padding token's row, as in the reference."""
        words = self.words[...][tokens]
        words = jnp.where((tokens == self.pad_token)[..., None], jax.lax.stop_gradient(words), words)
        return dropout(self.norm(words + positions), self.dropout_rate, key)


class WordHead(nnx.Module):
    """Three dense layers with ReLUs between them: D to the vocabulary's logits."""

    def __init__(self, config: CaptionConfig, *, rngs: nnx.Rngs):
        sizes = (config.width, config.head_width, config.head_width, config.vocab_size)
        self.layers = nnx.List([nnx.Linear(a, b, rngs=rngs) for a, b in itertools.pairwise(sizes)])

    def __call__(self, x: Float[Array, "b t d"]) -> Float[Array, "b t vocab"]:
        """Logits of the next word."""
        for index, layer in enumerate(self.layers):
            x = layer(x) if index == 0 else layer(jax.nn.relu(x))
        return x
