"""The caption transformer: an image encoder, DETR's transformer, and a head over words.

By default it agrees with CATR (https://github.com/saahiluppal/catr): ResNet-101 dilated to stride 16, pre-norm layers,
sine positions over the image, learned ones over the text. It differs on purpose in form: images are channels last;
masks are True on *content*; a batch of padded images gives each image the result it has alone (see backbone.py);
attention weights and caches are arguments and return values.

A ViT of vit_jax can take the place of the ResNet: its patches, after its final norm, are projected and given sine
positions. A ViT attends to the entire image, padding included, so its images are resized and not padded; the mask then
hides patches from the words only.

Letters: B batch, h x w image, gh x gw grid, S image tokens, T text tokens, H heads, L layers, D width, V vocabulary.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from caption.backbone import MapsOut, ResNet
from caption.config import CaptionConfig, ResNetConfig
from caption.forward import DecoderPerturbations, EncoderPerturbations, run_decoder_layers, run_encoder_layers
from caption.outputs import CaptionOutput, DecoderOutput, Memory
from caption.positions import sine_positions
from caption.transformer import DecoderLayer, EncoderLayer, WordEmbedding, WordHead, make_layer_norm
from vit_jax import InputError, VisionTransformer
from vit_jax.attention import Key
from vit_jax.block import Images, split_key
from vit_jax.execution import DEFAULT_EXECUTION, BlockExecution
from vit_jax.suggest import describe_unknown
from vit_jax.summary import summarize

PADDING = ("alone", "reference")
ImageMask = Bool[Array | np.ndarray, "b h w"]
Text = Int[Array | np.ndarray, "b t"]
TextMask = Bool[Array | np.ndarray, "b t"]


class CaptionTransformer(nnx.Module):
    """A caption model: a pytree of parameters only. The config decides which parameters it has."""

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
            self.encoder_norm = make_layer_norm(config, rngs)
        self.embedding = WordEmbedding(config, rngs=rngs)
        self.decoder_layers = nnx.List([DecoderLayer(config, rngs=rngs) for _ in range(config.decoder_layers)])
        self.decoder_norm = make_layer_norm(config, rngs)
        self.head = WordHead(config, rngs=rngs)

    def __repr__(self) -> str:
        return summarize(self)

    __str__ = __repr__  # nnx's own lists every array

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
        """Return the logits [B, T, V] of the next token at each position, in one teacher-forced pass.

        images:    [B, h, w, 3], normalised.
        padding:   "alone" gives each image of a batch the result it has alone, at its own size; "reference" lets
                   convolutions reach over the padding's edge, as the reference does.
        key:       turns dropout on.
        execution: how the layers run; values do not depend on it.

        Raises InputError for a text that is too long, shapes that do not match, and an unknown padding.
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
        """Return the images encoded for the decoder; options as in __call__."""
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
        """Return the image encoder's feature maps [B, gh, gw, C], and the mask at that size."""
        images, mask = jnp.asarray(images, self.embedding.words.dtype), jnp.asarray(image_mask)
        if padding not in PADDING:
            raise InputError(describe_unknown("padding", padding, PADDING))
        if mask.shape != images.shape[:3]:
            raise InputError(f"the image mask is {mask.shape}, not {images.shape[:3]} as the images are")
        config = self.config.encoder
        if images.shape[-1] != config.in_channels:
            raise InputError(f"images have {images.shape[-1]} channels in their last axis, not {config.in_channels}")
        if isinstance(self.encoder, ResNet):
            visible = mask if padding == "alone" else None
            maps, mask_out = self.encoder(images, visible, workarounds=execution.workarounds)
            return maps, resize_nearest(mask, maps.shape[1:3]) if mask_out is None else mask_out
        rows, columns = self.encoder.config.grid_for(images.shape[1:3])
        ph, pw = self.encoder.config.patch_size
        tokens = self.encoder.features(images, key=key, execution=execution)
        patches = tokens[:, self.encoder.config.num_prefix :]
        return patches.reshape(-1, rows, columns, patches.shape[-1]), mask[:, ::ph, ::pw]


def resize_nearest(mask: Bool[Array, "b h w"], size: tuple[int, ...]) -> Bool[Array, "b gh gw"]:
    """Resize the mask like torch's "nearest": row i of n is row floor(i * (h / n)) of h, in float32."""
    rows, columns = (
        np.floor(np.arange(n, dtype=np.float32) * (np.float32(full) / np.float32(n))).astype(int)
        for full, n in zip(mask.shape[1:], size, strict=True)
    )
    return mask[:, rows][:, :, columns]


def encode_with_attention(
    model: CaptionTransformer,
    images: Images,
    image_mask: ImageMask,
    *,
    padding: str = "alone",
    return_weights: bool = True,
    perturbations: EncoderPerturbations | None = None,
    key: Key | None = None,
    execution: BlockExecution = DEFAULT_EXECUTION,
) -> tuple[Memory, Float[Array, "layers b heads s s"]]:
    """Return the encoded images, and the attention weights of the layers over their grid.

    return_weights: False returns the weights of 0 layers.
    perturbations:  added to the weights: see vit_jax.attention.attend.
    """
    encoder_key, *layer_keys = split_key(key, 1 + len(model.encoder_layers))
    maps, grid_mask = model.features(images, image_mask, padding=padding, key=encoder_key, execution=execution)
    b, gh, gw, _ = maps.shape
    d = model.config.width
    positions = sine_positions(grid_mask, d).astype(maps.dtype).reshape(b, gh * gw, d)
    mask = grid_mask.reshape(b, gh * gw)
    x = model.project(maps).reshape(b, gh * gw, d)
    x, weights = run_encoder_layers(
        model.encoder_layers,
        x,
        positions,
        mask,
        layer_keys,
        return_weights=return_weights,
        perturbations=perturbations,
        execution=execution,
    )
    if model.config.encoder_layers:
        x = model.encoder_norm(x)
    if weights is None:
        weights = jnp.zeros((0, b, model.config.num_heads, gh * gw, gh * gw), x.dtype)
    return Memory(x, positions, mask, (gh, gw)), weights


def decode_with_attention(
    model: CaptionTransformer,
    memory: Memory,
    tokens: Text,
    token_mask: TextMask,
    *,
    return_weights: bool = True,
    perturbations: DecoderPerturbations | None = None,
    key: Key | None = None,
    execution: BlockExecution = DEFAULT_EXECUTION,
) -> DecoderOutput:
    """Return the logits of the next token at each position, and the attention weights. Words see only earlier words.

    perturbations are added to the weights of self-attention and of cross-attention. Raises InputError for a text
    longer than the model's max_positions, and for a mask of another shape.
    """
    tokens, token_mask = jnp.asarray(tokens), jnp.asarray(token_mask)
    length, max_length = tokens.shape[1], model.config.max_positions
    if length > max_length:
        raise InputError(f"a text of {length} tokens; the model has {max_length} positions")
    if token_mask.shape != tokens.shape:
        raise InputError(f"the token mask is {token_mask.shape}, not {tokens.shape} as the tokens are")
    embedding_key, *layer_keys = split_key(key, 1 + len(model.decoder_layers))
    positions = model.embedding.positions[...][None, :length]
    x = model.embedding(tokens, positions, key=embedding_key)
    causal_mask = jnp.tri(length, dtype=bool)[None] & token_mask[:, None, :]
    x, self_weights, cross_weights = run_decoder_layers(
        model.decoder_layers,
        x,
        positions,
        causal_mask,
        memory,
        layer_keys,
        return_weights=return_weights,
        perturbations=perturbations,
        execution=execution,
    )
    return DecoderOutput(model.head(model.decoder_norm(x)), cross_weights, self_weights)


def decode(
    model: CaptionTransformer,
    memory: Memory,
    tokens: Text,
    token_mask: TextMask,
    *,
    key: Key | None = None,
    execution: BlockExecution = DEFAULT_EXECUTION,
) -> Float[Array, "b t v"]:
    """Return the logits [B, T, V] of the next token at each position, over an encoded image. A key turns dropout on."""
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
    """Run the model and return its attention weights too: a pure function, no hooks. Raises as the model does."""
    memory, encoder_attention = encode_with_attention(model, images, image_mask, padding=padding)
    output = decode_with_attention(model, memory, tokens, token_mask)
    assert output.cross_attention is not None
    assert output.decoder_attention is not None
    return CaptionOutput(
        output.logits, output.cross_attention, output.decoder_attention, encoder_attention, memory.grid
    )
