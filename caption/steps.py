"""Decoding one token at a time: the image's keys and values once, those of the text kept as it grows.

Letters: B batch, S image tokens, M room for text, H heads, K size of a head, V vocabulary.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from caption.model import CaptionTransformer, Memory
from caption.transformer import KeysValues
from vit_jax import InputError

Cache = tuple[KeysValues, ...]  # of each layer: [B, M, H, K]


class Cross(NamedTuple):
    """What every word sees of the image. Batch comes first in all of it, so an item is repeated as any array is.

    layers: keys and values of each layer, [B, S, H, K]
    mask:   [B, S], True where there is content
    """

    layers: tuple[KeysValues, ...]
    mask: Bool[Array, "b s"]


def cross_keys_values(model: CaptionTransformer, memory: Memory) -> Cross:
    """The image's keys and values in every decoder layer, which all words share."""
    return Cross(tuple(layer.meet(memory.tokens, memory.positions) for layer in model.decoder_layers), memory.mask)


def empty_cache(model: CaptionTransformer, batch: int, length: int, *, dtype: Any = None) -> Cache:
    """Room for the keys and values of `length` tokens of each text. dtype: the parameters', unless given.

    Raises InputError for more tokens than the model has positions.
    """
    config = model.config
    if not 0 < length <= config.max_positions:
        raise InputError(f"a text of {length} tokens; the model has {config.max_positions} positions")
    shape = (batch, length, config.num_heads, config.width // config.num_heads)
    nothing = jnp.zeros(shape, dtype or model.embedding.words[...].dtype)
    return tuple(KeysValues(nothing, nothing) for _ in model.decoder_layers)


def decode_step(
    model: CaptionTransformer,
    token: Int[Array, " b"],
    position: Int[Array, ""] | int,
    cache: Cache,
    cross: Cross,
) -> tuple[Float[Array, "b v"], Cache]:
    """Logits [B, V] of the token after `token`, which stands at `position` (from 0) of every text, and the new cache.

    Positions come one after another from 0, each below the cache's length; that is the caller's to see to. Every
    token up to it counts as content.
    """
    room = cache[0].keys.shape[1]
    positions = model.embedding.positions[...][position].reshape(1, 1, -1)
    x = model.embedding(token[:, None], positions)
    self_mask = (jnp.arange(room) <= position).reshape(1, 1, 1, room)
    kept = []
    for layer, image, past in zip(model.decoder_layers, cross.layers, cache, strict=True):
        x, met, _, _ = layer(x, positions, self_mask, image, cross.mask[:, None, None, :], past=past, index=position)
        kept.append(met)
    return model.head(model.decoder_norm(x))[:, 0], tuple(kept)
