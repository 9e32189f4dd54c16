"""The caption transformer: an image encoder, DETR's transformer, and a head over words.

By default it agrees with CATR (https://github.com/saahiluppal/catr): ResNet-101 dilated to stride 16, pre-norm layers,
sine positions over the image, learned ones over the text. Differs knowingly: images are channels last; masks are
True where there *is* content; images padded into one batch are answered as each alone (see backbone.py); attention
weights and caches are arguments and answers. In place of the ResNet a ViT of vit_jax may stand: its patches, after its
last norm, are projected and given sine positions. A ViT looks at the whole image, padding too, so images for it are
resized and not padded; the mask then hides patches from the words only.

Letters: B batch, h x w image, gh x gw grid, S image tokens, T text tokens, H heads, L layers, D width, V vocabulary.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from caption.backbone import MapsOut, ResNet
from caption.config import CaptionConfig, ResNetConfig
from caption.positions import sine_positions
from caption.transformer import (
    DecoderLayer,
    EncoderLayer,
    Tokens,
    Weights,
    WordEmbedding,
    WordHead,
    layer_norm,
)
from vit_jax import InputError, VisionTransformer
from vit_jax.attention import Key
from vit_jax.block import Images, split_key
from vit_jax.execution import DEFAULT_EXECUTION, BlockExecution, apply_blocks

PADDING = ("alone", "reference")
ImageMask = Bool[Array | np.ndarray, "b h w"]
Text = Int[Array | np.ndarray, "b t"]
TextMask = Bool[Array | np.ndarray, "b t"]


class Memory(NamedTuple):
    """An image, encoded: what the decoder looks at. The grid is no array: it stays (rows, columns) under jax.jit.

    tokens:    [B, S, D], S = gh * gw in row order
    positions: [B, S, D], added to the keys
    mask:      [B, S], True where there is content
    """

    tokens: Tokens
    positions: Tokens
    mask: Bool[Array, "b s"]
    grid: tuple[int, int]


class CaptionOutput(NamedTuple):
    """What one teacher-forced pass answers. Rows (queries) of attention sum to 1.

    logits:            [B, T, V] of the token after each
    cross_attention:   [L, B, H, T, S]
    decoder_attention: [L, B, H, T, T]
    encoder_attention: [L, B, H, S, S], of the layers over the encoder's grid; L is 0 where there are none
    grid:              (gh, gw), with gh * gw = S; Python's ints, under jax.jit too
    """

    logits: Float[Array, "b t v"]
    cross_attention: Float[Array, "l b h t s"]
    decoder_attention: Float[Array, "l b h t t"]
    encoder_attention: Float[Array, "l b h s s"]
    grid: tuple[int, int]


def _static_grid(kind: Any) -> None:
    """Let the last field of a NamedTuple, its grid, stay outside the arrays."""
    jax.tree_util.register_pytree_with_keys(
        kind,
        lambda made: (
            [(jax.tree_util.GetAttrKey(n), v) for n, v in zip(kind._fields[:-1], made[:-1], strict=True)],
            made[-1],
        ),
        lambda grid, leaves: kind(*leaves, grid),
    )


_static_grid(Memory)
_static_grid(CaptionOutput)


class CaptionTransformer(nnx.Module):
    """A caption model; a pytree that holds parameters only. Which ones it has, its config says."""

    def __init__(self, config: CaptionConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.encoder: ResNet | VisionTransformer
        if isinstance(config.encoder, ResNetConfig):
            self.encoder, channels = ResNet(config.encoder, rngs=rngs), config.encoder.out_channels
        else:
            self.encoder, channels = VisionTransformer(config.encoder, rngs=rngs), config.encoder.width
        self.project = nnx.Linear(channels, config.width, rngs=rngs)
        self.encoder_layers = nnx.List([EncoderLayer(config, rngs=rngs) for _ in range(config.encoder_layers)])
        if config.encoder_layers:
            self.encoder_norm = layer_norm(config, rngs)
        self.embedding = WordEmbedding(config, rngs=rngs)
        self.decoder_layers = nnx.List([DecoderLayer(config, rngs=rngs) for _ in range(config.decoder_layers)])
        self.decoder_norm = layer_norm(config, rngs)
        self.head = WordHead(config, rngs=rngs)

    def __call__(
        self,
        images: Images,
        image_mask: ImageMask,
        tokens: Text,
        token_mask: TextMask,
        *,
        padding: str = "alone",
        key: Key | None = None,
        execution: BlockExecution = DEFAULT_EXECUTION,
    ) -> Float[Array, "b t v"]:
        """Logits [B, T, V] of the token after each, in one pass. A key turns dropout on.

        execution: how the layers are run, which changes no answer.

        images: [B, h, w, 3], normalised. padding: "alone" answers each image of a batch as it is alone, at its own
        size; "reference" lets convolutions reach over the padding's edge, as the reference does with padded images.
        Raises InputError for a text that is too long, shapes that do not fit, and another padding.
        """
        image_key, text_key = split_key(key, 2)
        memory = self.encode(images, image_mask, padding=padding, key=image_key, execution=execution)
        return decode(self, memory, tokens, token_mask, key=text_key, execution=execution)

    def encode(
        self,
        images: Images,
        image_mask: ImageMask,
        *,
        padding: str = "alone",
        key: Key | None = None,
        execution: BlockExecution = DEFAULT_EXECUTION,
    ) -> Memory:
        """The images, as the decoder looks at them. See __call__ for the padding."""
        options: dict[str, Any] = dict(padding=padding, key=key, execution=execution)
        return encode_with_attention(self, images, image_mask, return_weights=False, **options)[0]

    def features(
        self,
        images: Images,
        image_mask: ImageMask,
        *,
        padding: str = "alone",
        key: Key | None = None,
        execution: BlockExecution = DEFAULT_EXECUTION,
    ) -> tuple[MapsOut, Bool[Array, "b gh gw"]]:
        """The image encoder's answer [B, gh, gw, C], and the mask at that size."""
        images, mask = jnp.asarray(images), jnp.asarray(image_mask)
        if padding not in PADDING:
            raise InputError(f"unknown padding {padding!r}: one of {', '.join(PADDING)}")
        if mask.shape != images.shape[:3]:
            raise InputError(f"the image mask is {mask.shape}, not {images.shape[:3]} as the images are")
        config = self.config.encoder
        if images.shape[-1] != config.in_channels:
            raise InputError(f"images have {images.shape[-1]} channels in their last axis, not {config.in_channels}")
        if isinstance(self.encoder, ResNet):
            maps, after = self.encoder(images, mask if padding == "alone" else None)
            return maps, resize_nearest(mask, maps.shape[1:3]) if after is None else after
        rows, columns = self.encoder.config.grid_for(images.shape[1:3])
        ph, pw = self.encoder.config.patch_size
        patches = self.encoder.features(images, key=key, execution=execution)[:, self.encoder.config.num_prefix :]
        return patches.reshape(-1, rows, columns, patches.shape[-1]), mask[:, ::ph, ::pw]


def resize_nearest(mask: Bool[Array, "b h w"], size: tuple[int, ...]) -> Bool[Array, "b gh gw"]:
    """The mask at another size as torch's "nearest" has it: row i of n from h is floor(i * (h / n)), in float32."""
    rows, columns = (
        np.floor(np.arange(n, dtype=np.float32) * (np.float32(full) / np.float32(n))).astype(int)
        for full, n in zip(mask.shape[1:], size, strict=True)
    )
    return mask[:, rows][:, :, columns]


def at_layer(perturbations: Float[Array, "l b h n m"] | None, layer: int) -> Weights | None:
    """One layer's perturbation of its attention weights, where there are any."""
    return None if perturbations is None else perturbations[layer]


def encode_with_attention(
    model: CaptionTransformer,
    images: Images,
    image_mask: ImageMask,
    *,
    padding: str = "alone",
    return_weights: bool = True,
    perturbations: Float[Array, "l b heads s s"] | None = None,
    key: Key | None = None,
    execution: BlockExecution = DEFAULT_EXECUTION,
) -> tuple[Memory, Float[Array, "layers b heads s s"]]:
    """The images' memory, and the attention weights of the layers over their grid; none of them unless asked for.

    perturbations are added to the weights: see vit_jax.attention.attend.
    """
    encoder_key, *layer_keys = split_key(key, 1 + len(model.encoder_layers))
    maps, grid_mask = model.features(images, image_mask, padding=padding, key=encoder_key, execution=execution)
    b, gh, gw, _ = maps.shape
    d = model.config.width
    positions = sine_positions(grid_mask, d).astype(maps.dtype).reshape(b, gh * gw, d)
    mask = grid_mask.reshape(b, gh * gw)
    x = model.project(maps).reshape(b, gh * gw, d)
    kept: list[Any] = []
    if execution != DEFAULT_EXECUTION and not return_weights and perturbations is None:
        seen = mask[:, None, None, :]

        def apply(layer: EncoderLayer, x: Tokens, layer_key: Key | None) -> Tokens:
            return layer(x, positions, seen, key=layer_key)[0]

        x = apply_blocks(apply, model.encoder_layers, x, layer_keys, execution)
    else:
        for index, layer in enumerate(model.encoder_layers):
            x, weights = layer(
                x,
                positions,
                mask[:, None, None, :],
                return_weights=return_weights,
                perturbation=at_layer(perturbations, index),
                key=layer_keys[index],
            )
            kept.append(weights)
    if model.config.encoder_layers:
        x = model.encoder_norm(x)
    none = jnp.zeros((0, b, model.config.num_heads, gh * gw, gh * gw), x.dtype)
    return Memory(x, positions, mask, (gh, gw)), jnp.stack(kept) if kept and return_weights else none


class DecoderOutput(NamedTuple):
    """One teacher-forced pass of the decoder: CaptionOutput's fields; no attention unless asked for."""

    logits: Float[Array, "b t v"]
    cross_attention: Float[Array, "l b h t s"] | None
    decoder_attention: Float[Array, "l b h t t"] | None


def decode_with_attention(
    model: CaptionTransformer,
    memory: Memory,
    tokens: Text,
    token_mask: TextMask,
    *,
    return_weights: bool = True,
    perturbations: tuple[Float[Array, "l b h t t"], Float[Array, "l b h t s"]] | None = None,
    key: Key | None = None,
    execution: BlockExecution = DEFAULT_EXECUTION,
) -> DecoderOutput:
    """Logits of the token after each, each word seeing itself and those before it; with the weights used.

    perturbations are added to the weights of self- and of cross-attention. Raises InputError for a text longer than
    the model's max_positions, and a mask of another shape.
    """
    tokens, token_mask = jnp.asarray(tokens), jnp.asarray(token_mask)
    length, longest = tokens.shape[1], model.config.max_positions
    if length > longest:
        raise InputError(f"a text of {length} tokens; the model has {longest} positions")
    if token_mask.shape != tokens.shape:
        raise InputError(f"the token mask is {token_mask.shape}, not {tokens.shape} as the tokens are")
    embedding_key, *layer_keys = split_key(key, 1 + len(model.decoder_layers))
    positions = model.embedding.positions[...][None, :length]
    x = model.embedding(tokens, positions, key=embedding_key)
    self_mask = (jnp.tri(length, dtype=bool)[None] & token_mask[:, None, :])[:, None]  # [B, 1, T, T]
    of_self, of_cross = perturbations if perturbations is not None else (None, None)
    if execution != DEFAULT_EXECUTION and not return_weights and perturbations is None:
        image_mask = memory.mask[:, None, None, :]

        def apply(layer: DecoderLayer, x: Tokens, layer_key: Key | None) -> Tokens:
            met = layer.meet(memory.tokens, memory.positions)
            return layer(x, positions, self_mask, met, image_mask, key=layer_key).text

        x = apply_blocks(apply, model.decoder_layers, x, layer_keys, execution)
        return DecoderOutput(model.head(model.decoder_norm(x)), None, None)
    kept: list[tuple[Any, ...]] = []
    for index, layer in enumerate(model.decoder_layers):
        added = None if perturbations is None else (at_layer(of_self, index), at_layer(of_cross, index))
        x, *weights = layer(
            x,
            positions,
            self_mask,
            layer.meet(memory.tokens, memory.positions),
            memory.mask[:, None, None, :],
            return_weights=return_weights,
            perturbations=added,
            key=layer_keys[index],
        )
        kept.append(tuple(weights))
    logits = model.head(model.decoder_norm(x))
    if not return_weights:
        return DecoderOutput(logits, None, None)
    return DecoderOutput(logits, jnp.stack([cross for _, cross in kept]), jnp.stack([own for own, _ in kept]))


def decode(
    model: CaptionTransformer,
    memory: Memory,
    tokens: Text,
    token_mask: TextMask,
    *,
    key: Key | None = None,
    execution: BlockExecution = DEFAULT_EXECUTION,
) -> Float[Array, "b t v"]:
    """Logits [B, T, V] of the token after each, over an encoded image. A key turns dropout on."""
    options: dict[str, Any] = dict(return_weights=False, key=key, execution=execution)
    return decode_with_attention(model, memory, tokens, token_mask, **options).logits


def forward_with_attention(
    model: CaptionTransformer,
    images: Images,
    image_mask: ImageMask,
    tokens: Text,
    token_mask: TextMask,
    *,
    padding: str = "alone",
) -> CaptionOutput:
    """The forward pass with the attention weights it used: a pure function, no hooks. Raises as the model does."""
    memory, encoder_attention = encode_with_attention(model, images, image_mask, padding=padding)
    decoded = decode_with_attention(model, memory, tokens, token_mask)
    assert decoded.cross_attention is not None
    assert decoded.decoder_attention is not None
    return CaptionOutput(
        decoded.logits, decoded.cross_attention, decoded.decoder_attention, encoder_attention, memory.grid
    )
