"""The vision transformer (https://arxiv.org/abs/2010.11929).

By default it agrees with PyTorch-Pretrained-ViT 0.0.7: pre-norm blocks, exact GELU, LayerNorm eps 1e-6, [class] token
first, a head on the normalised [class] token; ViTConfig has what other families do otherwise. Differs knowingly: one
matrix product for q, k and v, the patch embedding as
a reshape and a matrix product, images channels last, and the position grid is resized on the fly (in the
checkpoint's own convention) when an image has another size.

Letters: B batch, N tokens, H heads, L layers, D width, C classes, h x w image, gh x gw grid of patches.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from vit_jax.attention import Key
from vit_jax.block import Block, Images, PatchEmbed, layer_norm, split_key
from vit_jax.config import ViTConfig
from vit_jax.errors import InputError
from vit_jax.execution import DEFAULT_EXECUTION, BlockExecution, apply_blocks
from vit_jax.pooling import AttentionPool
from vit_jax.position import resize_position_embedding, similarity

BlockRandomness = tuple[Key | None, jax.Array | None]  # what a block draws by: its key and its rate of drop path
HEAD_FUSIONS: dict[str, Callable] = {"mean": jnp.mean, "max": jnp.max, "min": jnp.min}


class ViTOutput(NamedTuple):
    """What one forward pass answers.

    logits:    [B, C]
    features:  [B, N, D], every token after the final norm (before it, where the norm falls on the pooled one)
    attention: [L, B, H, N, N], rows (queries) sum to 1; [L, B, N, N] where heads were fused
    """

    logits: Float[Array, "b c"]
    features: Float[Array, "b n d"]
    attention: Float[Array, "..."]


class VisionTransformer(nnx.Module):
    """A vision transformer; a pytree that holds parameters only. Which ones it has, its config says."""

    def __init__(self, config: ViTConfig, *, rngs: nnx.Rngs):
        d, draw = config.width, 0.02
        self.config = config
        self.patch_embed = PatchEmbed(config, rngs=rngs)
        if config.class_token:
            self.class_token = nnx.Param(jnp.zeros((1, 1, d)))
        if config.distillation_token:
            self.distillation_token = nnx.Param(jnp.zeros((1, 1, d)))
        if config.num_registers:
            self.registers = nnx.Param(draw * jax.random.normal(rngs.params(), (1, config.num_registers, d)))
        self.position_embedding = nnx.Param(draw * jax.random.normal(rngs.params(), (1, config.num_positions, d)))
        if config.pre_norm:
            self.pre_norm = layer_norm(config, rngs)
        self.blocks = nnx.List([Block(config, rngs=rngs) for _ in range(config.depth)])
        if config.final_norm != "none":
            self.norm = layer_norm(config, rngs)
        if config.pooling == "map":
            self.pool = AttentionPool(config, rngs=rngs)
        if config.representation:
            self.representation = nnx.Linear(config.pooled_width, config.representation, rngs=rngs)
        if config.num_classes:
            size = config.representation or config.pooled_width
            zeros = jax.nn.initializers.zeros
            self.head = nnx.Linear(size, config.num_classes, use_bias=config.head_bias, kernel_init=zeros, rngs=rngs)
            if config.distillation_head:
                self.distillation_head = nnx.Linear(size, config.num_classes, kernel_init=zeros, rngs=rngs)

    def __call__(
        self, images: Images, *, key: Key | None = None, layers: BlockExecution = DEFAULT_EXECUTION
    ) -> Float[Array, "b classes"]:
        """Logits [B, C] of normalised images [B, h, w, channels], or without a head the pooled features [B, D].

        A key turns dropout on. layers: how the blocks are run, which changes no answer.

        Images may have any size that the patch divides: the position grid is resized to it.
        Raises InputError for another number of channels or a size that the patch does not divide.
        """
        return self.classify(self._tokens(images, key, layers, self.config.readout))

    def features(
        self, images: Images, *, key: Key | None = None, layers: BlockExecution = DEFAULT_EXECUTION
    ) -> Float[Array, "b n d"]:
        """Every token after the blocks and finish(). A key turns dropout on."""
        return self._tokens(images, key, layers, None)

    def _tokens(
        self, images: Images, key: Key | None, layers: BlockExecution, first: int | None
    ) -> Float[Array, "b n d"]:
        """Features of the first so many tokens, all for None: the last block works out those alone."""

        def apply(block: Block, x: jax.Array, drawn: BlockRandomness, first: int | None = None) -> jax.Array:
            return block(x, key=drawn[0], drop_path=drawn[1], first=first)[0]

        drawn: list[BlockRandomness] = list(
            zip(split_key(key, len(self.blocks)), drop_path_rates(self.config), strict=True)
        )
        x = self.embed(images)
        if first is None or x.dtype == jnp.bfloat16:  # XLA's CPU compiler can't emit that gradient of one token's
            return self.finish(apply_blocks(apply, self.blocks, x, drawn, layers))
        x = apply_blocks(apply, self.blocks[:-1], x, drawn[:-1], layers)
        last = partial(apply, first=first)
        return self.finish(apply_blocks(last, self.blocks[-1:], x, drawn[-1:], replace(layers, scan=False)))

    def embed(self, images: Images) -> Float[Array, "b n d"]:
        """The token sequence that enters the first block: [class], [distillation], registers, patches.

        Positions are added to all but the registers (https://arxiv.org/abs/2309.16588), and to [class] only where the
        table has one for it.
        """
        config = self.config
        b, h, w, channels = images.shape
        if channels != config.in_channels:
            raise InputError(f"images have {channels} channels in their last axis, not {config.in_channels}")
        positions = resize_position_embedding(
            self.position_embedding[...],
            config.grid,
            config.grid_for((h, w)),
            num_prefix=config.prefix_positions,
            method=config.posemb_resize,
        )
        prefix = [self._repeated(self.class_token, b)] if config.class_token else []
        prefix += [self._repeated(self.distillation_token, b)] if config.distillation_token else []
        tokens = [*prefix, self.patch_embed(images)]
        if config.prefix_positions:
            x = jnp.concatenate(tokens, axis=1) + positions
        else:
            x = jnp.concatenate([*prefix, tokens[-1] + positions], axis=1)
        if config.num_registers:
            first = len(prefix)
            x = jnp.concatenate([x[:, :first], self._repeated(self.registers, b), x[:, first:]], axis=1)
        return self.pre_norm(x) if config.pre_norm else x

    def _repeated(self, tokens: nnx.Param, batch: int) -> Float[Array, "b p d"]:
        """Learned tokens [1, P, D], the same for every image."""
        return jnp.broadcast_to(tokens[...], (batch, *tokens.shape[1:]))

    def finish(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        """The tokens after the final norm, where it falls on tokens."""
        return self.norm(x) if self.config.final_norm == "tokens" else x

    def classify(self, features: Float[Array, "b n d"]) -> Float[Array, "b classes"]:
        """Logits, or without a head the pooled features, from the tokens that finish() answers."""
        config = self.config
        if config.pooling == "map":
            pooled = self.pool(features[:, config.num_prefix :])
        elif config.pooling == "gap":
            pooled = features[:, config.num_prefix :].mean(axis=1)
        elif config.pooling == "cls_gap":
            pooled = jnp.concatenate([features[:, 0], features[:, config.num_prefix :].mean(axis=1)], axis=-1)
        else:
            pooled = features[:, 0]
        if config.final_norm == "pooled":
            pooled = self.norm(pooled)
        if config.representation:
            pooled = jnp.tanh(self.representation(pooled))
        if not config.num_classes:
            return pooled
        if config.distillation_head:
            return (self.head(pooled) + self.distillation_head(features[:, 1])) / 2
        return self.head(pooled)


def drop_path_rates(config: ViTConfig) -> list[jax.Array | None]:
    """Each block's rate, growing evenly from 0 at the first to config.drop_path at the last; Nones where that is 0."""
    if not config.drop_path:
        return [None] * config.depth
    return [jnp.asarray(config.drop_path * i / max(1, config.depth - 1), jnp.float32) for i in range(config.depth)]


def resolve_layers(layers: Sequence[int] | None, depth: int) -> list[int]:
    """Layers counted from 0, all of them for None. Raises InputError for one that there is not."""
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
    chosen = resolve_layers(layers, len(model.blocks))
    kept: dict[int, Float[Array, "..."]] = {}
    x = model.embed(images)
    for index, block in enumerate(model.blocks):
        x, weights = block(x, return_weights=index in chosen)
        if weights is not None:
            kept[index] = weights if head_fusion is None else HEAD_FUSIONS[head_fusion](weights, axis=1)
    features = model.finish(x)
    b, n, _ = features.shape
    none_chosen = jnp.zeros((0, b, *([] if head_fusion else [model.config.num_heads]), n, n), features.dtype)
    attention = jnp.stack([kept[layer] for layer in chosen]) if chosen else none_chosen
    return ViTOutput(model.classify(features), features, attention)


def position_similarity(model: VisionTransformer) -> Float[Array, "gh gw gh gw"]:
    """Cosine similarity of every patch's position embedding to every other's: see posemb.similarity.

    For another image size: position_similarity(with_image_size(model, size)).
    """
    config = model.config
    return similarity(model.position_embedding[...], config.grid, num_prefix=config.prefix_positions)


def count_parameters(model: nnx.Module) -> int:
    """The number of parameters, of a model or of its shapes (jax.eval_shape)."""
    return sum(leaf.size for leaf in jax.tree.leaves(model))
