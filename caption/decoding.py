"""Decoding one token at a time: what all words share worked out once, keys and values of the text kept as it grows.

A step's time is to go into reading the weights. So what does not change from word to word is worked out before the
first (`prepare`): the image's keys and values, the columns of the kernels that are needed, what biases and positions
add to queries and keys. Keys and values are laid out as the products with them read them, one head after another.

Letters: N hypotheses (of B images), Q queries, S image tokens, M room for text, H heads, K size of a head, D width,
V vocabulary.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from caption.model import CaptionTransformer, Memory
from caption.transformer import DecoderLayer
from vit_jax import InputError
from vit_jax.attention import mask_scores


class KVCache(NamedTuple):
    """Keys and values in one layer, ready for products."""

    keys: Float[Array, "n h k m"]
    values: Float[Array, "n h m k"]


Cache = tuple[KVCache, ...]  # of the text, in each layer


class PreparedLayer(NamedTuple):
    """What one decoder layer does to every word.

    qkv, added:     self-attention's kernel, and by position what is added to the product: bias, and positions
    query, asked:   the kernel of the queries to the image, and by position what is added to them
    image:          its keys and values
    """

    qkv: Float[Array, "d qkv"]
    added: Float[Array, "positions qkv"]
    query: Float[Array, "d d"]
    asked: Float[Array, "positions d"]
    image: KVCache


class PreparedDecoder(NamedTuple):
    """What every word of the captions of these images shares. mask: True where there is content."""

    layers: tuple[PreparedLayer, ...]
    mask: Bool[Array, "b s"]


def prepare_decoder(model: CaptionTransformer, memory: Memory) -> PreparedDecoder:
    """What the words of these images' captions share, in every decoder layer."""
    return PreparedDecoder(tuple(_prepare_layer(model, layer, memory) for layer in model.decoder_layers), memory.mask)


def _prepare_layer(model: CaptionTransformer, layer: DecoderLayer, memory: Memory) -> PreparedLayer:
    positions = model.embedding.positions[...]
    d = positions.shape[1]
    own, cross = layer.attn.qkv, layer.cross.qkv
    assert own.bias is not None
    assert cross.bias is not None
    placed = positions @ own.kernel[...][:, : 2 * d]  # values go without positions
    met = layer.meet(memory.tokens, memory.positions)
    return PreparedLayer(
        own.kernel[...],
        jnp.pad(placed, ((0, 0), (0, d))) + own.bias[...][None],
        cross.kernel[...][:, :d],
        positions @ cross.kernel[...][:, :d] + cross.bias[...][None, :d],
        KVCache(met.keys.transpose(0, 2, 3, 1), met.values.transpose(0, 2, 1, 3)),
    )


def empty_cache(model: CaptionTransformer, count: int, length: int, *, dtype: Any = None) -> Cache:
    """Room for the keys and values of `length` tokens of each of `count` texts. dtype: the parameters', unless given.

    Raises InputError for more tokens than the model has positions.
    """
    config = model.config
    if not 0 < length <= config.max_positions:
        raise InputError(f"a text of {length} tokens; the model has {config.max_positions} positions")
    size = config.width // config.num_heads
    keys = jnp.zeros((count, config.num_heads, size, length), dtype or model.embedding.words[...].dtype)
    return tuple(KVCache(keys, keys.swapaxes(2, 3)) for _ in model.decoder_layers)


def attend_cached(query: Float[Array, "n q d"], met: KVCache, mask: Bool[Array, "#n m"]) -> Float[Array, "n q d"]:
    """What queries gather from keys and values by multi-head attention. Scores and softmax in float32 at least."""
    n, q, d = query.shape
    heads, size = met.keys.shape[1:3]
    dtype = jnp.promote_types(query.dtype, jnp.float32)
    scaled = (query * size**-0.5).reshape(n, q, heads, size).swapaxes(1, 2)
    scores = jnp.matmul(scaled, met.keys, preferred_element_type=dtype)  # [N, H, Q, M]
    weights = jax.nn.softmax(mask_scores(scores, mask[:, None, None, :]), axis=-1).astype(met.values.dtype)
    return jnp.matmul(weights, met.values).swapaxes(1, 2).reshape(n, q, d)


def decode_step(
    model: CaptionTransformer,
    token: Int[Array, " n"],
    position: Int[Array, ""] | int,
    cache: Cache,
    prepared: PreparedDecoder,
) -> tuple[Float[Array, "n v"], Cache]:
    """Logits [N, V] of the token after `token`, which stands at `position` (from 0) of every text, and the new cache.

    Texts of an image stand side by side: N is a multiple of the images prepared. Positions come one after another
    from 0, each below the cache's length; that is the caller's to see to. Every token up to it counts as content.
    """
    embedded = model.embedding(token[:, None], model.embedding.positions[...][position].reshape(1, 1, -1))
    x = embedded[:, 0]  # [N, D]
    kept = []
    for layer, shared, past in zip(model.decoder_layers, prepared.layers, cache, strict=True):
        x, met = _apply_layer(layer, x, position, past, shared, prepared.mask)
        kept.append(met)
    return model.head(model.decoder_norm(x)[:, None])[:, 0], tuple(kept)


def _apply_layer(
    layer: DecoderLayer,
    x: Float[Array, "n d"],
    position: Int[Array, ""] | int,
    past: KVCache,
    shared: PreparedLayer,
    image_mask: Bool[Array, "b s"],
) -> tuple[Float[Array, "n d"], KVCache]:
    """DecoderLayer's answer for one token a text, without dropout."""
    n, d = x.shape
    heads, images = layer.attn.num_heads, len(image_mask)
    q, k, v = jnp.split(layer.norm1(x) @ shared.qkv + shared.added[position][None], 3, axis=-1)
    met = KVCache(
        jax.lax.dynamic_update_slice_in_dim(past.keys, k.reshape(n, heads, -1, 1), position, axis=3),
        jax.lax.dynamic_update_slice_in_dim(past.values, v.reshape(n, heads, 1, -1), position, axis=2),
    )
    so_far = (jnp.arange(met.keys.shape[3]) <= position)[None]
    x = x + layer.attn.out(attend_cached(q[:, None], met, so_far)[:, 0])
    asked = (layer.norm2(x) @ shared.query + shared.asked[position][None]).reshape(images, n // images, d)
    x = x + layer.cross.out(attend_cached(asked, shared.image, image_mask).reshape(n, d))
    return x + layer.mlp(layer.norm3(x)[:, None])[:, 0], met
