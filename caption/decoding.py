"""Cached decoding, one token at a time: what all words share is computed once, keys and values of the text are cached.

A step's time should go into reading the weights. What does not change from word to word is therefore computed before
the first one (prepare_decoder): the image's keys and values, the columns of the kernels that are needed, and what
biases and positions add to queries and keys. Keys and values are stored in the layout that the products read, heads
first.

Letters: N hypotheses (of B images), Q queries, S image tokens, M cache length, H heads, K size of a head, D width,
V vocabulary.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from caption.model import CaptionTransformer
from caption.outputs import Memory
from caption.transformer import DecoderLayer
from vit_jax import InputError
from vit_jax.attention import mask_scores


class KVCache(NamedTuple):
    """Keys and values of one layer, in the layout of the products."""

    keys: Float[Array, "n h k m"]
    values: Float[Array, "n h m k"]


Cache = tuple[KVCache, ...]  # the text's, by layer


class PreparedLayer(NamedTuple):
    """The part of one decoder layer that all words share.

    qkv_kernel:             of self-attention
    qkv_bias_by_position:   bias and positions, as added to the product with qkv_kernel
    query_kernel:           of cross-attention's queries
    query_bias_by_position: the same for the product with query_kernel
    image_kv:               the image's keys and values
    """

    qkv_kernel: Float[Array, "d qkv"]
    qkv_bias_by_position: Float[Array, "positions qkv"]
    query_kernel: Float[Array, "d d"]
    query_bias_by_position: Float[Array, "positions d"]
    image_kv: KVCache


class PreparedDecoder(NamedTuple):
    """The part of a decoder that all words of these images' captions share. mask: True on the images' content."""

    layers: tuple[PreparedLayer, ...]
    mask: Bool[Array, "b s"]


def prepare_decoder(model: CaptionTransformer, memory: Memory) -> PreparedDecoder:
    """Compute, for every decoder layer, what all words of these images' captions share."""
    return PreparedDecoder(tuple(_prepare_layer(model, layer, memory) for layer in model.decoder_layers), memory.mask)


def _prepare_layer(model: CaptionTransformer, layer: DecoderLayer, memory: Memory) -> PreparedLayer:
    positions = model.embedding.positions[...]
    d = positions.shape[1]
    qkv, cross_qkv = layer.attn.qkv, layer.cross.qkv
    assert qkv.bias is not None
    assert cross_qkv.bias is not None
    projected_positions = positions @ qkv.kernel[...][:, : 2 * d]  # none for the values
    image_kv = layer.project_memory(memory.tokens, memory.positions)
    return PreparedLayer(
        qkv.kernel[...],
        jnp.pad(projected_positions, ((0, 0), (0, d))) + qkv.bias[...][None],
        cross_qkv.kernel[...][:, :d],
        positions @ cross_qkv.kernel[...][:, :d] + cross_qkv.bias[...][None, :d],
        KVCache(image_kv.keys.transpose(0, 2, 3, 1), image_kv.values.transpose(0, 2, 1, 3)),
    )


def empty_cache(model: CaptionTransformer, count: int, length: int, *, dtype: Any = None) -> Cache:
    """Allocate a cache for `count` texts of `length` tokens. dtype: by default the parameters'.

    Raises InputError for more tokens than the model has positions.
    """
    config = model.config
    if not 0 < length <= config.max_positions:
        raise InputError(f"a text of {length} tokens; the model has {config.max_positions} positions")
    size = config.width // config.num_heads
    keys = jnp.zeros((count, config.num_heads, size, length), dtype or model.embedding.words[...].dtype)
    return tuple(KVCache(keys, keys.swapaxes(2, 3)) for _ in model.decoder_layers)


def attend_cached(query: Float[Array, "n q d"], kv: KVCache, mask: Bool[Array, "#n m"]) -> Float[Array, "n q d"]:
    """Attend to cached keys and values; heads merged, not projected. Scores and softmax in float32 at least."""
    n, q, d = query.shape
    heads, size = kv.keys.shape[1:3]
    dtype = jnp.promote_types(query.dtype, jnp.float32)
    scaled = (query * size**-0.5).reshape(n, q, heads, size).swapaxes(1, 2)
    scores = jnp.matmul(scaled, kv.keys, preferred_element_type=dtype)  # [N, H, Q, M]
    weights = jax.nn.softmax(mask_scores(scores, mask[:, None, None, :]), axis=-1).astype(kv.values.dtype)
    return jnp.matmul(weights, kv.values).swapaxes(1, 2).reshape(n, q, d)


def decode_step(
    model: CaptionTransformer,
    token: Int[Array, " n"],
    position: Int[Array, ""] | int,
    cache: Cache,
    prepared: PreparedDecoder,
) -> tuple[Float[Array, "n v"], Cache]:
    """Return the logits [N, V] of the token after `token`, and the new cache.

    position: of the token in every text, from 0. The caller passes positions in order, each below the cache's length;
    every token up to it counts as content. Texts of one image are adjacent: N is a multiple of the prepared images.
    """
    embedded = model.embedding(token[:, None], model.embedding.positions[...][position].reshape(1, 1, -1))
    x = embedded[:, 0]  # [N, D]
    new_cache = []
    for layer, shared, kv in zip(model.decoder_layers, prepared.layers, cache, strict=True):
        x, new_kv = _apply_layer(layer, x, position, kv, shared, prepared.mask)
        new_cache.append(new_kv)
    return model.head(model.decoder_norm(x)[:, None])[:, 0], tuple(new_cache)


def _apply_layer(
    layer: DecoderLayer,
    x: Float[Array, "n d"],
    position: Int[Array, ""] | int,
    kv: KVCache,
    shared: PreparedLayer,
    image_mask: Bool[Array, "b s"],
) -> tuple[Float[Array, "n d"], KVCache]:
    """Apply a DecoderLayer to one token of each text, without dropout."""
    n, d = x.shape
    heads, images = layer.attn.num_heads, len(image_mask)
    q, k, v = jnp.split(layer.norm1(x) @ shared.qkv_kernel + shared.qkv_bias_by_position[position][None], 3, axis=-1)
    kv = KVCache(
        jax.lax.dynamic_update_slice_in_dim(kv.keys, k.reshape(n, heads, -1, 1), position, axis=3),
        jax.lax.dynamic_update_slice_in_dim(kv.values, v.reshape(n, heads, 1, -1), position, axis=2),
    )
    is_written = (jnp.arange(kv.keys.shape[3]) <= position)[None]
    x = x + layer.attn.out(attend_cached(q[:, None], kv, is_written)[:, 0])
    query = layer.norm2(x) @ shared.query_kernel + shared.query_bias_by_position[position][None]
    attended = attend_cached(query.reshape(images, n // images, d), shared.image_kv, image_mask)
    x = x + layer.cross.out(attended.reshape(n, d))
    return x + layer.mlp(layer.norm3(x)[:, None])[:, 0], kv
