"""The exact decomposition of a logit into what each head, MLP and bias adds to it directly.

In a pre-norm model the tokens that leave the last block are a sum,

    x = embedding + sum over layers of (heads + attention bias + MLP),

and the logit is linear in x once the scale of the final norm (1 / sqrt(variance + eps) of each item's own tokens, the
mean square in place of the variance for an RMSNorm) is held at its value: the norm is linearized by freezing its scale
per item. Each term's contribution is its product with that linear map; the terms and a constant (the biases of the
final norm and the head) sum to the logit up to rounding.
Contributions are direct: what a head changes in later layers counts for those layers.

Source: Elhage et al., "A Mathematical Framework for Transformer Circuits", 2021; for vision transformers Gandelsman et
al., ICLR 2024, arXiv 2310.05916.

Letters: B batch, K target classes, L layers, H heads, N tokens, D width, C classes.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from vit_jax.attention import Norm
from vit_jax.block import Block
from vit_jax.config import ViTConfig
from vit_jax.edits import Edit
from vit_jax.errors import InputError
from vit_jax.explain.gradients import Targets, check_targets, class_cotangents
from vit_jax.model import Images, VisionTransformer
from vit_jax.position import BlockPositions


class LogitContributions(NamedTuple):
    """The terms of the targets' logits; without the K axis for targets [B].

    heads:           [L, B, K, H], of each head through the attention's output layer
    attention_bias:  [L, B, K], of the bias of that layer
    mlp:             [L, B, K], of each MLP with its biases
    embedding:       [B, K], of the tokens that enter the first block
    constant:        [B, K], of the biases of the final norm and of the head
    """

    heads: Float[Array, "..."]
    attention_bias: Float[Array, "..."]
    mlp: Float[Array, "..."]
    embedding: Float[Array, "..."]
    constant: Float[Array, "..."]

    def total(self) -> Float[Array, "..."]:
        """Return the sum of all terms: the logits, [B, K] or [B]."""
        layers = self.heads.sum(axis=-1) + self.attention_bias + self.mlp
        return layers.sum(axis=0) + self.embedding + self.constant


def why_not_linear(config: ViTConfig) -> str:
    """Return why a model's logits are no sum over its heads; "" if they are."""
    if not config.num_classes:
        return "explains a class, and the model has no classification head"
    if config.norm_position != "pre":
        return "needs norms before the branches (norm_position 'pre'); after them the blocks' outputs do not add up"
    if config.pools_by_attention:
        return "needs a pooling by [class] or a mean; attention pooling is not linear in the tokens"
    if config.representation:
        return "needs a head of one layer; the layer before the head has an activation"
    if config.attention_norm:
        return "needs heads that add up; this model has a norm between the heads and the attention's output layer"
    return ""


def decompose_logits(model: VisionTransformer, images: Images, targets: Targets) -> LogitContributions:
    """Return the terms whose sum is each target's logit, for targets [B] or [B, K].

    images: normalised, [B, h, w, c]. Raises InputError for an unknown class and for a model whose logits are not such
    a sum: with norms after the branches, attention pooling, a layer before the head, or a norm within the attention.
    """
    config = model.config
    if reason := why_not_linear(config):
        raise InputError(f"head_contributions {reason}")
    classes = check_targets(targets, images.shape[0], config.num_outputs)
    outputs = model.run(images, return_outputs=True).outputs
    read = _freeze_readout(model, outputs[-1])
    logits, pull = jax.vjp(read, outputs[-1])
    cotangents = class_cotangents(classes, config.num_outputs, logits.dtype)
    directions = jax.vmap(lambda cotangent: pull(cotangent)[0])(cotangents)  # [K, B, N, D]

    def contribute(tokens: Float[Array, "b n d"]) -> Float[Array, "b k"]:
        return jnp.einsum("kbnd,bnd->bk", directions, tokens, precision=jax.lax.Precision.HIGHEST)

    positions = model.block_positions(config.grid_for(images.shape[1:3]))
    heads, biases, mlps = [], [], []
    for block, x in zip(model.blocks, outputs[:-1], strict=True):
        attended, _ = block.attention_branch(x, positions=positions)
        by_head, bias = _contribute_heads(block, x, positions, directions)
        heads.append(by_head)
        biases.append(bias)
        mlps.append(contribute(block.mlp_branch(x + attended)))
    constant = jnp.take_along_axis(read(jnp.zeros_like(outputs[-1])), classes, axis=1)
    terms = LogitContributions(jnp.stack(heads), jnp.stack(biases), jnp.stack(mlps), contribute(outputs[0]), constant)
    if targets.ndim == 2:
        return terms
    return LogitContributions(
        terms.heads[:, :, 0], terms.attention_bias[..., 0], terms.mlp[..., 0], terms.embedding[:, 0], constant[:, 0]
    )


def head_contributions(model: VisionTransformer, images: Images, targets: Targets) -> Float[Array, "..."]:
    """Return what each head adds directly to each target's logit: [L, B, H] for targets [B], [L, B, K, H] for [B, K].

    The heads' part of decompose_logits; errors as there.
    """
    return decompose_logits(model, images, targets).heads


def _freeze_readout(
    model: VisionTransformer, tokens: Float[Array, "b n d"]
) -> Callable[[Float[Array, "b n d"]], Float[Array, "b classes"]]:
    """Return the map from the last block's tokens to the logits, with the final norm's scale of these tokens."""
    place = model.config.final_norm
    norm_tokens = _freeze_norm(model.norm, tokens) if place == "tokens" else lambda x: x
    norm_pooled = _freeze_norm(model.norm, model.pool_tokens(tokens)) if place == "pooled" else lambda x: x

    def read(x: Float[Array, "b n d"]) -> Float[Array, "b classes"]:
        features = norm_tokens(x)
        return model.apply_head(norm_pooled(model.pool_tokens(features)), features)

    return read


def _freeze_norm(norm: Norm, x: Float[Array, "... d"]) -> Callable[[jax.Array], jax.Array]:
    """Return a norm with the scale that it has at x: affine in its input."""

    def centre(v: jax.Array) -> jax.Array:
        return v - v.mean(axis=-1, keepdims=True) if isinstance(norm, nnx.LayerNorm) else v

    scale = jax.lax.rsqrt(jnp.square(centre(x)).mean(axis=-1, keepdims=True) + norm.epsilon)
    broadcast = (1,) * (x.ndim - 1) + (-1,)
    gain = jnp.asarray(norm.scale).reshape(broadcast)
    bias = jnp.asarray(norm.bias).reshape(broadcast) if isinstance(norm, nnx.LayerNorm) else 0
    return lambda v: centre(v) * scale * gain + bias


def _contribute_heads(
    block: Block, x: Float[Array, "b n d"], positions: BlockPositions, directions: Float[Array, "k b n d"]
) -> tuple[Float[Array, "b k h"], Float[Array, "b k"]]:
    """Return the contributions of a block's heads, and of the attention's output bias, along the directions.

    The branch is affine in a scale of each head: the gradient is the heads' part, the value at 0 the bias.
    """
    count = block.attn.num_heads

    def of_item(x: Float[Array, "n d"], directions: Float[Array, "k n d"]) -> tuple[jax.Array, jax.Array]:
        def branch(scale: Float[Array, " h"]) -> Float[Array, "n d"]:
            return block.attention_branch(x[None], positions=positions, edit=Edit(head_scale=scale))[0][0]

        bias, pull = jax.vjp(branch, jnp.zeros(count, x.dtype))
        by_head = jax.vmap(lambda direction: pull(direction)[0])(directions)
        return by_head, jnp.einsum("knd,nd->k", directions, bias, precision=jax.lax.Precision.HIGHEST)

    return jax.vmap(of_item, in_axes=(0, 1))(x, directions)
