"""The parts of the caption transformer: DETR's pre-norm layers (https://arxiv.org/abs/2005.12872) as in CATR.

Positions are added to queries and keys in every layer, never to values.

Letters: B batch, S image tokens, T text tokens, N queries, M keys, H heads, K size of a head, D width.
"""

import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from caption.config import CaptionConfig
from vit_jax._xla import materialize
from vit_jax.attention import Key, MultiHeadAttention, attend, dropout
from vit_jax.block import split_key
from vit_jax.linear import Linear

Tokens = Float[Array, "b n d"]
Positions = Float[Array, "#b n d"]
Weights = Float[Array, "b h n m"]
CrossWeights = Float[Array, "b h n s"]
Mask = Bool[Array, "#b #h #n m"]
CrossMask = Bool[Array, "#b #h #n s"]


class KeysValues(NamedTuple):
    """The keys and values that queries attend to in one layer."""

    keys: Float[Array, "b m h k"]
    values: Float[Array, "b m h k"]


def make_layer_norm(config: CaptionConfig, rngs: nnx.Rngs, *, eps: float | None = None) -> nnx.LayerNorm:
    """Create a LayerNorm over the width, by default with the config's eps."""
    return nnx.LayerNorm(
        config.width, epsilon=config.norm_eps if eps is None else eps, use_fast_variance=False, rngs=rngs
    )


def make_attention(config: CaptionConfig, rngs: nnx.Rngs) -> MultiHeadAttention:
    """Create an attention of the config's width and number of heads."""
    return MultiHeadAttention(config.width, config.num_heads, dropout_rate=config.dropout, rngs=rngs)


def attend_and_project(
    attn: MultiHeadAttention,
    query: Float[Array, "b n h k"],
    kv: KeysValues,
    mask: Mask,
    *,
    return_weights: bool,
    perturbation: Weights | None,
    key: Key | None,
    workarounds: bool,
) -> tuple[Tokens, Weights | None]:
    """Attend to the keys and values, and project the merged heads; return the weights too when asked for."""
    attended, weights = attend(
        query,
        kv.keys,
        kv.values,
        mask=mask,
        return_weights=return_weights,
        perturbation=perturbation,
        dropout_rate=attn.dropout_rate,
        dropout_key=key,
        workarounds=workarounds,
    )
    return attn.merge_heads(attended), weights


def self_attend(
    attn: MultiHeadAttention,
    x: Tokens,
    positions: Positions,
    mask: Mask,
    *,
    return_weights: bool,
    perturbation: Weights | None,
    key: Key | None,
    workarounds: bool,
) -> tuple[Tokens, Weights | None]:
    """Attend from x to x, with the positions added to queries and keys; options as in attend_and_project()."""
    query, keys = attn.project(x + positions, "qk", workarounds)
    kv = KeysValues(keys, *attn.project(x, "v", workarounds))
    options: dict[str, Any] = dict(return_weights=return_weights, perturbation=perturbation, key=key)
    return attend_and_project(attn, query, kv, mask, workarounds=workarounds, **options)


class FeedForward(nnx.Module):
    """Two dense layers with a ReLU between them."""

    def __init__(self, config: CaptionConfig, *, rngs: nnx.Rngs):
        init = jax.nn.initializers.xavier_uniform()
        self.up = Linear(config.width, config.mlp_dim, kernel_init=init, rngs=rngs)
        self.down = Linear(config.mlp_dim, config.width, kernel_init=init, rngs=rngs)
        self.dropout_rate = config.dropout

    def __call__(self, x: Tokens, *, key: Key | None = None) -> Tokens:
        """Apply up, ReLU, dropout and down."""
        return self.down(dropout(jax.nn.relu(self.up(x)), self.dropout_rate, key))


class EncoderLayer(nnx.Module):
    """x + attention(norm1(x)), then x + mlp(norm2(x)), over the image's tokens."""

    def __init__(self, config: CaptionConfig, *, rngs: nnx.Rngs):
        self.norm1 = make_layer_norm(config, rngs)
        self.attn = make_attention(config, rngs)
        self.norm2 = make_layer_norm(config, rngs)
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
        workarounds: bool = True,
    ) -> tuple[Tokens, Weights | None]:
        """Return the layer's output, and its attention weights [B, H, S, S] when asked for."""
        attn_key, attn_out_key, mlp_key, mlp_out_key = split_key(key, 4)
        attended, weights = self_attend(
            self.attn,
            self.norm1(x),
            positions,
            mask,
            return_weights=return_weights,
            perturbation=perturbation,
            key=attn_key,
            workarounds=workarounds,
        )
        x = materialize(x + dropout(attended, self.dropout_rate, attn_out_key), workarounds)
        changed = self.mlp(self.norm2(x), key=mlp_key)
        return materialize(x + dropout(changed, self.dropout_rate, mlp_out_key), workarounds), weights


class DecoderLayerOutput(NamedTuple):
    """The output of one decoder layer.

    text:          [B, T, D]
    self_weights:  [B, H, T, T] when asked for
    cross_weights: [B, H, T, S] when asked for
    """

    text: Tokens
    self_weights: Weights | None
    cross_weights: CrossWeights | None


class DecoderLayer(nnx.Module):
    """Self-attention over the text, cross-attention to the image, MLP; each with a norm before and a sum after it."""

    def __init__(self, config: CaptionConfig, *, rngs: nnx.Rngs):
        self.norm1 = make_layer_norm(config, rngs)
        self.attn = make_attention(config, rngs)
        self.norm2 = make_layer_norm(config, rngs)
        self.cross = make_attention(config, rngs)
        self.norm3 = make_layer_norm(config, rngs)
        self.mlp = FeedForward(config, rngs=rngs)
        self.dropout_rate = config.dropout

    def project_memory(self, memory: Tokens, positions: Tokens, workarounds: bool = True) -> KeysValues:
        """Return the image's keys and values in this layer: the same for every word."""
        (keys,) = self.cross.project(memory + positions, "k", workarounds)
        (values,) = self.cross.project(memory, "v", workarounds)
        return KeysValues(keys, values)

    def __call__(
        self,
        x: Tokens,
        positions: Positions,
        self_mask: Mask,
        image_kv: KeysValues,
        image_mask: CrossMask,
        *,
        return_weights: bool = False,
        perturbations: tuple[Weights | None, CrossWeights | None] | None = None,
        key: Key | None = None,
        workarounds: bool = True,
    ) -> DecoderLayerOutput:
        """Return the layer's output for tokens x at these positions; decoding.py has the cached form for one token.

        perturbations are added to the weights of self-attention and of cross-attention.
        """
        attn_key, attn_out_key, cross_key, cross_out_key, mlp_key, mlp_out_key = split_key(key, 6)
        self_perturbation, cross_perturbation = perturbations if perturbations is not None else (None, None)
        attended, self_weights = self_attend(
            self.attn,
            self.norm1(x),
            positions,
            self_mask,
            return_weights=return_weights,
            perturbation=self_perturbation,
            key=attn_key,
            workarounds=workarounds,
        )
        x = materialize(x + dropout(attended, self.dropout_rate, attn_out_key), workarounds)
        (query,) = self.cross.project(self.norm2(x) + positions, "q", workarounds)
        attended, cross_weights = attend_and_project(
            self.cross,
            query,
            image_kv,
            image_mask,
            return_weights=return_weights,
            perturbation=cross_perturbation,
            key=cross_key,
            workarounds=workarounds,
        )
        x = materialize(x + dropout(attended, self.dropout_rate, cross_out_key), workarounds)
        changed = self.mlp(self.norm3(x), key=mlp_key)
        x = materialize(x + dropout(changed, self.dropout_rate, mlp_out_key), workarounds)
        return DecoderLayerOutput(x, self_weights, cross_weights)


class WordEmbedding(nnx.Module):
    """norm(word + position). Every decoder layer adds the positions again to its queries and keys."""

    def __init__(self, config: CaptionConfig, *, rngs: nnx.Rngs):
        init = jax.nn.initializers.xavier_uniform()
        self.words = nnx.Param(init(rngs.params(), (config.vocab_size, config.width)))
        self.positions = nnx.Param(init(rngs.params(), (config.max_positions, config.width)))
        self.norm = make_layer_norm(config, rngs, eps=config.embedding_eps)
        self.dropout_rate = config.dropout
        self.pad_token = config.pad_token

    def __call__(
        self, tokens: Int[Array, "b t"], positions: Float[Array, "1 t d"], *, key: Key | None = None
    ) -> Float[Array, "b t d"]:
        """Return the first layer's input. The padding token's row gets no gradient, as in the reference."""
        words = self.words[...][tokens]
        words = jnp.where((tokens == self.pad_token)[..., None], jax.lax.stop_gradient(words), words)
        return dropout(self.norm(words + positions), self.dropout_rate, key)


class WordHead(nnx.Module):
    """Three dense layers with ReLUs between them: D to the vocabulary's logits."""

    def __init__(self, config: CaptionConfig, *, rngs: nnx.Rngs):
        sizes = (config.width, config.head_width, config.head_width, config.vocab_size)
        self.layers = nnx.List([nnx.Linear(a, b, rngs=rngs) for a, b in itertools.pairwise(sizes)])

    def __call__(self, x: Float[Array, "b t d"]) -> Float[Array, "b t vocab"]:
        """Return the logits of the next word."""
        for index, layer in enumerate(self.layers):
            x = layer(x) if index == 0 else layer(jax.nn.relu(x))
        return x
