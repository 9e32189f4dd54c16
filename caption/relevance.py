"""Encoder-decoder relevance of every word (Chefer et al., ICCV 2021, https://arxiv.org/abs/2103.15679, section 3).

Attention weights times their gradients, rectified and averaged over heads, are propagated through the layers: image to
image (R_ss), text to text (R_tt) and text to image (R_ts). A cross-attention adds N(R_tt)^T A N(R_ss) to R_ts, where
N subtracts the identity, divides each row by its sum, and adds the identity again. The reference code is
https://github.com/hila-chefer/Transformer-MM-Explainability. Each word has its own backward pass, truncated at its
query: the transposed factor would mix later words into earlier ones, and their gradients are 0 there.

Letters: T text tokens, S image tokens, H heads, L layers, D width.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from caption.model import CaptionTransformer, decode_with_attention, encode_with_attention
from vit_jax.block import Images


@partial(jax.jit, static_argnames=("padding",))
def word_relevance(
    model: CaptionTransformer,
    image: Images,
    image_mask: Bool[Array, "1 h w"],
    tokens: Int[Array, "1 t"],
    *,
    padding: str = "alone",
) -> Float[Array, "t-1 s"]:
    """Return in row t the relevance of each image token for the token at t + 1, given those before it.

    image:  [1, h, w, 3], normalised.
    tokens: [1, T], start and end included, all of them content.

    Relevance is at least 0 and not normalised. One backward pass per word.
    """
    t = tokens.shape[1]
    mask = jnp.ones((1, t), bool)
    zeros = _zero_perturbations(model, image, image_mask, t, padding)

    def logits_and_weights(perturbations: tuple[jax.Array, ...]) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        """Return the logit of each next token, and the attention weights of the encoder, text and cross-attention."""
        of_encoder, of_text, of_cross = perturbations
        memory, encoder_weights = encode_with_attention(
            model, image, image_mask, padding=padding, perturbations=of_encoder
        )
        output = decode_with_attention(model, memory, tokens, mask, perturbations=(of_text, of_cross))
        assert output.decoder_attention is not None
        assert output.cross_attention is not None
        next_logits = jnp.take_along_axis(output.logits[0, :-1], tokens[0, 1:, None], axis=-1)[:, 0]
        return next_logits, (encoder_weights, output.decoder_attention, output.cross_attention)

    next_logits, vjp, weights = jax.vjp(logits_and_weights, zeros, has_aux=True)

    def explain_word(query: jax.Array) -> jax.Array:
        (gradients,) = vjp((jnp.arange(t - 1) == query).astype(next_logits.dtype))
        fused = [jax.nn.relu(w * g)[:, 0].mean(axis=1) for w, g in zip(weights, gradients, strict=True)]
        return propagate_relevance(*fused)[query]

    return jax.lax.map(explain_word, jnp.arange(t - 1))


def _zero_perturbations(
    model: CaptionTransformer, image: Images, image_mask: Bool[Array, "1 h w"], t: int, padding: str
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return zeros in the shape of the weights of the encoder, of the text and of cross-attention."""
    config = model.config
    heads, dtype = config.num_heads, model.embedding.words[...].dtype
    s = jax.eval_shape(lambda m: m.encode(image, image_mask, padding=padding).tokens, model).shape[1]
    return (
        jnp.zeros((config.encoder_layers, 1, heads, s, s), dtype),
        jnp.zeros((config.decoder_layers, 1, heads, t, t), dtype),
        jnp.zeros((config.decoder_layers, 1, heads, t, s), dtype),
    )


def propagate_relevance(
    image: Float[Array, "le s s"], text: Float[Array, "ld t t"], cross: Float[Array, "ld t s"]
) -> Float[Array, "t s"]:
    """Return R_ts from each layer's attention times gradient, fused over heads."""
    r_ss = jnp.eye(image.shape[1], dtype=cross.dtype)
    for layer in range(image.shape[0]):
        r_ss = r_ss + image[layer] @ r_ss
    r_tt, r_ts = jnp.eye(text.shape[1], dtype=cross.dtype), jnp.zeros(cross.shape[1:], cross.dtype)
    for layer in range(text.shape[0]):
        r_tt, r_ts = r_tt + text[layer] @ r_tt, r_ts + text[layer] @ r_ts
        r_ts = r_ts + normalize_rows(r_tt).T @ cross[layer] @ normalize_rows(r_ss)
    return r_ts


def normalize_rows(relevance: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """Subtract the identity, divide each row by its sum, add the identity; rows without relevance stay the identity."""
    identity = jnp.eye(relevance.shape[0], dtype=relevance.dtype)
    rest = relevance - identity
    sums = rest.sum(axis=-1, keepdims=True)
    return rest / jnp.where(sums > 0, sums, 1) + identity
