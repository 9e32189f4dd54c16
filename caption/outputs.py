"""What the stages of a caption model return: the encoded image, a decoder pass, a complete forward pass.

Letters: B batch, gh x gw grid, S image tokens, T text tokens, H heads, L layers, D width, V vocabulary.
"""

from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Bool, Float

from caption.transformer import Tokens


class Memory(NamedTuple):
    """An encoded image, which the decoder attends to.

    tokens:    [B, S, D], S = gh * gw in row order
    positions: [B, S, D], added to the keys
    mask:      [B, S], True on content
    grid:      (gh, gw), Python ints under jax.jit too
    """

    tokens: Tokens
    positions: Tokens
    mask: Bool[Array, "b s"]
    grid: tuple[int, int]


class DecoderOutput(NamedTuple):
    """The result of one teacher-forced decoder pass: fields of CaptionOutput, attention only when asked for."""

    logits: Float[Array, "b t v"]
    cross_attention: Float[Array, "l b h t s"] | None
    decoder_attention: Float[Array, "l b h t t"] | None


class CaptionOutput(NamedTuple):
    """The result of one teacher-forced pass. Rows (queries) of attention sum to 1.

    logits:            [B, T, V] of the next token at each position
    cross_attention:   [L, B, H, T, S]
    decoder_attention: [L, B, H, T, T]
    encoder_attention: [L, B, H, S, S], of the layers over the encoder's grid; L is 0 when there are none
    grid:              (gh, gw), gh * gw = S, Python ints under jax.jit too
    """

    logits: Float[Array, "b t v"]
    cross_attention: Float[Array, "l b h t s"]
    decoder_attention: Float[Array, "l b h t t"]
    encoder_attention: Float[Array, "l b h s s"]
    grid: tuple[int, int]


def _register_with_static_grid(kind: Any) -> None:
    """Register a NamedTuple as a pytree whose last field, the grid, is static."""
    jax.tree_util.register_pytree_with_keys(
        kind,
        lambda output: (
            [(jax.tree_util.GetAttrKey(n), v) for n, v in zip(kind._fields[:-1], output[:-1], strict=True)],
            output[-1],
        ),
        lambda grid, leaves: kind(*leaves, grid),
    )


_register_with_static_grid(Memory)
_register_with_static_grid(CaptionOutput)
