"""What a page shows of a model's layers for one picture: the factors of attention and of the tokens' similarity.

Letters: L layers, H heads, N tokens, D width, K size of a head, T entries of a relative position table.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from vit_jax.block import Block
from vit_jax.errors import InputError
from vit_jax.model import VisionTransformer
from vit_jax.prediction import probabilities
from vit_jax.viewer.factors import Factors, QuantizedFactors, factor_scores, factor_similarities


class PictureRun(NamedTuple):
    """One picture's forward pass. tokens: [1, N, D], those that enter each layer and then those that leave the last.

    probabilities: of the classes; empty for a model without a head.
    """

    tokens: tuple[Float[Array, "1 n d"], ...]
    probabilities: Float[np.ndarray, " classes"]


class LayerFactors(NamedTuple):
    """The exact factors of one layer: attention scores of H heads without their bias, and tokens' similarities."""

    scores: Factors
    similarities: Factors


def run_picture(model: VisionTransformer, pixels: UInt8[np.ndarray, "h w c"]) -> PictureRun:
    """Run a model on a picture of its size. Raises InputError when its output is not finite."""
    tokens, values = _run(model, pixels[None])
    if not np.isfinite(np.asarray(tokens[-1], np.float32)).all():
        raise InputError("the model's output is not finite (NaN); are its weights damaged?")
    return PictureRun(tokens, np.asarray(values[0]) if model.config.num_classes else np.zeros(0, np.float32))


@jax.jit
def _run(model: VisionTransformer, pixels: Any) -> tuple[tuple[Float[Array, "1 n d"], ...], Float[Array, "1 c"]]:
    images = model.config.preprocess.normalize(pixels.astype(jnp.float32) / 255)
    tokens = model.run(images, return_outputs=True).outputs
    logits = model.classify(model.apply_final_norm(tokens[-1])).astype(jnp.float32)
    return tokens, probabilities(model.config, logits)


def factor_layers(model: VisionTransformer, run: PictureRun) -> list[LayerFactors]:
    """Return the factors of every layer.

    Similarities are of the tokens that leave a layer, through the model's final norm: those of the last layer are
    vit_jax.patch_similarity's.
    """
    layers = []
    for block, entering, leaving in zip(model.blocks, run.tokens[:-1], run.tokens[1:], strict=True):
        queries, keys, features = (
            np.asarray(part[0], np.float32) for part in _project(model, block, entering, leaving)
        )
        layers.append(LayerFactors(factor_scores(queries, keys), factor_similarities(features)))
    return layers


@jax.jit
def _project(
    model: VisionTransformer, block: Block, entering: Float[Array, "1 n d"], leaving: Float[Array, "1 n d"]
) -> tuple[Float[Array, "1 n h k"], Float[Array, "1 n h k"], Float[Array, "1 n d"]]:
    queries, keys = block.score_factors(entering, positions=model.block_positions(model.config.grid))
    return queries, keys, model.apply_final_norm(leaving)


@jax.jit
def _attend(model: VisionTransformer, block: Block, tokens: Float[Array, "1 n d"]) -> Float[Array, "1 h n n"]:
    positions = model.block_positions(model.config.grid)
    _, weights = block.attention_branch(tokens, positions=positions, return_weights=True)
    assert weights is not None
    return weights


def read_biases(model: VisionTransformer) -> list[Float[np.ndarray, "t h"]]:
    """Return the tables of relative position bias at the model's image size: one per layer, a shared one, or none."""
    relative = model.block_positions(model.config.grid).relative
    kind = model.config.relative_bias
    if kind == "none" or relative is None:
        return []
    owners = [model] if kind == "shared" else model.blocks
    return [np.asarray(relative.resize(owner.relative_bias[...]), np.float32) for owner in owners]


def measure_errors(
    model: VisionTransformer, run: PictureRun, layers: Sequence[int], scores: Sequence[QuantizedFactors]
) -> Iterator[float]:
    """Yield, for each of the layers, the largest difference of the page's attention from the model's own.

    The model's own is the one that forward_with_attention returns.
    """
    positions = model.block_positions(model.config.grid)
    for layer, factors in zip(layers, scores, strict=True):
        block = model.blocks[layer]
        table = block.relative_bias[...] if block.has_relative_bias else None
        bias = positions.bias_from(table)
        stored = factors.product() + (0 if bias is None else np.asarray(bias[0], np.float32))
        exact = np.asarray(_attend(model, block, run.tokens[layer])[0], np.float32)
        yield float(np.abs(softmax(stored) - exact).max())


def softmax(scores: Float[np.ndarray, "... n"]) -> Float[np.ndarray, "... n"]:
    """Return the softmax over the last axis."""
    raised = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)
