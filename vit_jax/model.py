"""The vision transformer (https://arxiv.org/abs/2010.11929).

By default it agrees with PyTorch-Pretrained-ViT 0.0.7: pre-norm blocks, exact GELU, LayerNorm eps 1e-6, [class] token
first, a head on the normalised [class] token. ViTConfig selects what other families do differently. It differs on
purpose in form: one matrix product for q, k and v, the patch embedding as a reshape and a matrix product, images
channels last, and a position grid that is resized during the call (in the checkpoint's own convention) when an image
has another size.

Letters: B batch, N tokens, H heads, L layers, D width, C classes, h x w image, gh x gw grid of patches.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from vit_jax.attention import HEAD_FUSIONS, Key, fuse_heads
from vit_jax.block import ACTIVATIONS, Block, Images, PatchEmbed, make_norm, split_key
from vit_jax.block_stack import BlocksOutput, keep_by_layer, run_blocks
from vit_jax.config import ViTConfig
from vit_jax.edits import NO_EDIT, Edit, check_edit
from vit_jax.errors import InputError
from vit_jax.execution import DEFAULT_EXECUTION, BlockExecution
from vit_jax.pooling import AttentionPool
from vit_jax.position import (
    BlockPositions,
    RelativePositions,
    count_distances,
    make_rotation,
    resize_position_embedding,
    similarity,
)
from vit_jax.summary import summarize


class ViTOutput(NamedTuple):
    """The result of forward_with_attention.

    logits:    [B, C]
    features:  [B, N, D], every token after the final norm (before it, if the model norms the pooled token instead)
    attention: [L, B, H, N, N], each row (query) sums to 1; [L, B, N, N] with fused heads
    """

    logits: Float[Array, "b c"]
    features: Float[Array, "b n d"]
    attention: Float[Array, "..."]


class VisionTransformer(nnx.Module):
    """A vision transformer: a pytree of parameters only. The config decides which parameters it has."""

    def __init__(self, config: ViTConfig, *, rngs: nnx.Rngs):
        d, std = config.width, 0.02
        self.config = config
        self.patch_embed = PatchEmbed(config, rngs=rngs)
        if config.class_token:
            self.class_token = nnx.Param(jnp.zeros((1, 1, d)))
        if config.distillation_token:
            self.distillation_token = nnx.Param(jnp.zeros((1, 1, d)))
        if config.num_registers:
            self.registers = nnx.Param(std * jax.random.normal(rngs.params(), (1, config.num_registers, d)))
        if config.position_table:
            self.position_embedding = nnx.Param(std * jax.random.normal(rngs.params(), (1, config.num_positions, d)))
        if config.relative_bias == "shared":
            self.relative_bias = nnx.Param(jnp.zeros((count_distances(config.grid), config.num_heads)))
        if config.pre_norm:
            self.pre_norm = make_norm(config, rngs)
        self.blocks = nnx.List([Block(config, rngs=rngs) for _ in range(config.depth)])
        if config.final_norm != "none":
            self.norm = make_norm(config, rngs)
        if config.pools_by_attention:
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
        self, images: Images, *, key: Key | None = None, execution: BlockExecution = DEFAULT_EXECUTION
    ) -> Float[Array, "b classes"]:
        """Return the logits [B, C] of normalised images [B, h, w, channels]; without a head the pooled features [B, D].

        key:       turns dropout and drop path on.
        execution: how the blocks run; values do not depend on it.

        Images may have any size that the patch divides; the position grid is resized to it.
        Raises InputError for another number of channels or a size that the patch does not divide.
        """
        tokens = self.run(images, num_queries=self.config.num_head_tokens, key=key, execution=execution).tokens
        return self.classify(self.apply_final_norm(tokens), workarounds=execution.workarounds)

    def __repr__(self) -> str:
        return summarize(self)

    __str__ = __repr__  # nnx's own lists every array

    def features(
        self, images: Images, *, key: Key | None = None, execution: BlockExecution = DEFAULT_EXECUTION
    ) -> Float[Array, "b n d"]:
        """Return every token after the blocks and the final norm. A key turns dropout on."""
        return self.apply_final_norm(self.run(images, key=key, execution=execution).tokens)

    def run(self, images: Images, *, key: Key | None = None, edit: Edit = NO_EDIT, **options: Any) -> BlocksOutput:
        """Embed the images and run the blocks; options are those of run_blocks(). A key turns dropout on.

        apply_final_norm() and classify() lead from its tokens to the logits.
        """
        keys, rates = split_key(key, len(self.blocks)), drop_path_rates(self.config)
        tokens = self.embed(images)
        positions = self.block_positions(self.config.grid_for(images.shape[1:3]))
        check_edit(edit, self.config, tokens)
        randomness = list(zip(keys, rates, strict=True))
        return run_blocks(self.blocks, tokens, randomness, positions=positions, edit=edit, **options)

    def block_positions(self, grid: tuple[int, int]) -> BlockPositions:
        """Return what the blocks need of the positions of a (rows, columns) grid of patches."""
        config = self.config
        rotation = None
        if config.rotary is not None:
            dtype = self.patch_embed.kernel.dtype
            rotation = make_rotation(config.rotary, grid, config.head_size, config.num_prefix, dtype)
        relative = RelativePositions(config.grid, grid, config.posemb_resize)
        bias = relative.bias(self.relative_bias[...]) if config.relative_bias == "shared" else None
        return BlockPositions(rotation, bias, relative)

    def embed(self, images: Images) -> Float[Array, "b n d"]:
        """Return the tokens that enter the first block: [class], [distillation], registers, patches.

        Registers have no positions (https://arxiv.org/abs/2309.16588); [class] and [distillation] have them only if
        config.class_position is set, and no token has them without config.position_table.
        """
        config = self.config
        _, h, w, channels = images.shape
        if channels != config.in_channels:
            raise InputError(f"images have {channels} channels in their last axis, not {config.in_channels}")
        grid = config.grid_for((h, w))
        positions = self._resize_positions(grid) if config.position_table else None
        prefix = [_repeat_for_batch(self.class_token, images)] if config.class_token else []
        prefix += [_repeat_for_batch(self.distillation_token, images)] if config.distillation_token else []
        patches = self.patch_embed(images)
        if positions is None:
            x = jnp.concatenate([*prefix, patches], axis=1)
        elif config.prefix_positions:
            x = jnp.concatenate([*prefix, patches], axis=1) + positions
        else:
            x = jnp.concatenate([*prefix, patches + positions], axis=1)
        if config.num_registers:
            split = len(prefix)
            x = jnp.concatenate([x[:, :split], _repeat_for_batch(self.registers, images), x[:, split:]], axis=1)
        return self.pre_norm(x) if config.pre_norm else x

    def _resize_positions(self, grid: tuple[int, int]) -> Float[Array, "1 n d"]:
        config = self.config
        return resize_position_embedding(
            self.position_embedding[...],
            config.grid,
            grid,
            num_prefix=config.prefix_positions,
            method=config.posemb_resize,
        )

    def apply_final_norm(self, tokens: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        """Return the tokens after the final norm; unchanged if the model norms the pooled token or has none."""
        return self.norm(tokens) if self.config.final_norm == "tokens" else tokens

    def classify(self, features: Float[Array, "b n d"], *, workarounds: bool = True) -> Float[Array, "b classes"]:
        """Return the logits, or without a head the pooled features, of the tokens that apply_final_norm() returns."""
        pooled = self.pool_features(features, workarounds=workarounds)
        return self.apply_head(pooled, features) if self.config.num_classes else pooled

    def apply_head(
        self, pooled: Float[Array, "b pooled"], features: Float[Array, "b n d"]
    ) -> Float[Array, "b classes"]:
        """Return the logits of the pooled vector; the [distillation] token has its own head."""
        if self.config.distillation_head:
            return (self.head(pooled) + self.distillation_head(features[:, 1])) / 2
        return self.head(pooled)

    def pool_features(self, features: Float[Array, "b n d"], *, workarounds: bool = True) -> Float[Array, "b pooled"]:
        """Return the vector that the head reads, of the tokens that apply_final_norm() returns."""
        config = self.config
        pooled = self.pool_tokens(features, workarounds=workarounds)
        if config.final_norm == "pooled":
            pooled = self.norm(pooled)
        if config.representation:
            pooled = ACTIVATIONS[config.representation_activation](self.representation(pooled))
        return pooled

    def pool_tokens(self, features: Float[Array, "b n d"], *, workarounds: bool = True) -> Float[Array, "b pooled"]:
        """Return what pool_features() returns, before a norm of the pooled vector and a layer before the head."""
        config = self.config
        if config.pooling == "map":
            pooled = self.pool(features[:, config.num_prefix :], workarounds=workarounds)
        elif config.pooling == "map_all":
            pooled = self.pool(features, workarounds=workarounds)
        elif config.pooling == "gap":
            pooled = features[:, config.num_prefix :].mean(axis=1)
        elif config.pooling == "mean":
            pooled = features.mean(axis=1)
        elif config.pooling == "cls_gap":
            pooled = jnp.concatenate([features[:, 0], features[:, config.num_prefix :].mean(axis=1)], axis=-1)
        else:
            pooled = features[:, 0]
        return pooled


def _repeat_for_batch(token: nnx.Param, images: Images) -> Float[Array, "b p d"]:
    """Return tokens [1, p, d] once per image; in an exported program the number of images is a symbol, not an int."""
    return jnp.broadcast_to(token[...], (images.shape[0], *token.shape[1:]))


def drop_path_rates(config: ViTConfig) -> list[jax.Array | None]:
    """Return each block's rate, rising linearly from 0 to config.drop_path at the last block; Nones if that is 0."""
    if not config.drop_path:
        return [None] * config.depth
    return [jnp.asarray(config.drop_path * i / max(1, config.depth - 1), jnp.float32) for i in range(config.depth)]


def resolve_layers(layers: Sequence[int] | None, depth: int) -> list[int]:
    """Return layers as 0 to depth - 1; negative ones count from the end, None is all. Raises InputError if unknown."""
    if layers is None:
        return list(range(depth))
    unknown = [layer for layer in layers if not -depth <= layer < depth]
    if unknown:
        raise InputError(f"no layer {unknown[0]}: the model has {depth}, counted 0 to {depth - 1} or from the end")
    return [layer % depth for layer in layers]


def forward_with_attention(
    model: VisionTransformer,
    images: Images,
    *,
    layers: Sequence[int] | None = None,
    head_fusion: str | None = None,
    edit: Edit = NO_EDIT,
) -> ViTOutput:
    """Run the model and return its attention weights too. A pure function, without hooks.

    layers:      the layers whose weights to return, in this order; negative ones count from the end, None is all.
    head_fusion: "mean", "max" or "min" fuses the heads of each layer, so that L x B x H x N x N is never held.
    edit:        of heads, branches and tokens; see Edit.

    Layers that are not asked for stay on the fused path. The weights do not change the logits beyond rounding.
    Raises InputError for an unknown layer or fusion, an edit of another shape, and as the model does.
    """
    if head_fusion is not None and head_fusion not in HEAD_FUSIONS:
        raise InputError(f"unknown head_fusion {head_fusion!r}: one of {', '.join(HEAD_FUSIONS)}, or None")
    chosen = resolve_layers(layers, len(model.blocks))

    def keep(state: Any, layer: int, weights: Float[Array, "b h n n"]) -> Any:
        return keep_by_layer(state, layer, weights if head_fusion is None else fuse_heads(weights, head_fusion))

    tokens, by_layer, _ = model.run(images, layers=chosen, fold=keep, edit=edit)
    features = model.apply_final_norm(tokens)
    b, n, _ = features.shape
    heads = [] if head_fusion else [model.config.num_heads]
    empty = jnp.zeros((0, b, *heads, n, n), features.dtype)
    attention = jnp.stack([by_layer[layer] for layer in chosen]) if chosen else empty
    return ViTOutput(model.classify(features), features, attention)


def position_similarity(model: VisionTransformer) -> Float[Array, "gh gw gh gw"]:
    """Return the cosine similarity of every two patches' position embeddings; see vit_jax.position.similarity.

    For another image size: position_similarity(with_image_size(model, size)).
    Raises InputError for a model without a position table.
    """
    config = model.config
    if not config.position_table:
        raise InputError("the model has no table of position embeddings to compare: its positions act in the attention")
    return similarity(model.position_embedding[...], config.grid, num_prefix=config.prefix_positions)
