"""The passes through the encoder's and the decoder's layers, with the attention weights a caller asks for.

Every forward pass of this package but cached decoding (decoding.py) runs its layers here.

Letters: B batch, S image tokens, T text tokens, H heads, L layers, D width.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from caption.outputs import Memory
from caption.transformer import DecoderLayer, EncoderLayer, Positions, Tokens
from vit_jax.attention import Key
from vit_jax.execution import DEFAULT_EXECUTION, BlockExecution, apply_blocks

EncoderPerturbations = Float[Array, "l b heads s s"]
DecoderPerturbations = tuple[Float[Array, "l b heads t t"], Float[Array, "l b heads t s"]]


def run_encoder_layers(
    layers: Sequence[EncoderLayer],
    x: Tokens,
    positions: Tokens,
    mask: Bool[Array, "b s"],
    keys: Sequence[Key | None],
    *,
    return_weights: bool = False,
    perturbations: EncoderPerturbations | None = None,
    execution: BlockExecution = DEFAULT_EXECUTION,
) -> tuple[Tokens, EncoderPerturbations | None]:
    """Return the last layer's output, and the weights of all layers [L, B, H, S, S] when asked for.

    keys:          of dropout, one per layer.
    perturbations: added to the weights: see vit_jax.attention.attend.
    """
    key_mask = mask[:, None, None, :]

    def apply(layer: EncoderLayer, x: Tokens, argument: Any) -> tuple[Tokens, Any]:
        key, perturbation = argument
        options: dict[str, Any] = dict(perturbation=perturbation, key=key, workarounds=execution.workarounds)
        return layer(x, positions, key_mask, return_weights=return_weights, **options)

    added = [None if perturbations is None else perturbations[i] for i in range(len(layers))]
    x, weights = _run(apply, layers, x, list(zip(keys, added, strict=True)), return_weights, execution)
    return x, jnp.stack(weights) if weights else None


def run_decoder_layers(
    layers: Sequence[DecoderLayer],
    x: Tokens,
    positions: Positions,
    self_mask: Bool[Array, "b t t"],
    memory: Memory,
    keys: Sequence[Key | None],
    *,
    return_weights: bool = False,
    perturbations: DecoderPerturbations | None = None,
    execution: BlockExecution = DEFAULT_EXECUTION,
) -> tuple[Tokens, Float[Array, "l b heads t t"] | None, Float[Array, "l b heads t s"] | None]:
    """Return the last layer's output; when asked for, all weights of self-attention and of cross-attention.

    self_mask:     True where a token (second axis) sees another (third axis).
    perturbations: added to the weights of self-attention and of cross-attention.
    """
    image_mask = memory.mask[:, None, None, :]

    def apply(layer: DecoderLayer, x: Tokens, argument: Any) -> tuple[Tokens, Any]:
        key, perturbations = argument
        output = layer(
            x,
            positions,
            self_mask[:, None],
            layer.project_memory(memory.tokens, memory.positions, execution.workarounds),
            image_mask,
            return_weights=return_weights,
            perturbations=perturbations,
            key=key,
            workarounds=execution.workarounds,
        )
        return output.text, (output.self_weights, output.cross_weights)

    added = [None if perturbations is None else tuple(p[i] for p in perturbations) for i in range(len(layers))]
    x, weights = _run(apply, layers, x, list(zip(keys, added, strict=True)), return_weights, execution)
    if not weights:
        return x, None, None
    self_weights, cross_weights = (jnp.stack(stack) for stack in zip(*weights, strict=True))
    return x, self_weights, cross_weights


def _run(
    apply: Callable[[Any, Tokens, Any], tuple[Tokens, Any]],
    layers: Sequence[Any],
    x: Tokens,
    arguments: Sequence[Any],
    return_weights: bool,
    execution: BlockExecution,
) -> tuple[Tokens, tuple[Any, ...]]:
    """Return x after x, weights = apply(layer, x, argument) for each layer, and the weights when asked for.

    Layers that return weights are not scanned.
    """

    def step(layer: Any, carry: Any, argument: Any) -> Any:
        x, collected = carry
        x, weights = apply(layer, x, argument)
        return x, (*collected, weights) if return_weights else collected

    how = replace(execution, scan=execution.scan and not return_weights)
    return apply_blocks(step, layers, (x, ()), arguments, how)
