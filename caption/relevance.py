"""Encoder-decoder relevance of every word, by Chefer et al. (ICCV 2021, https://arxiv.org/abs/2103.15679), section 3.

Attention weights times their gradient, rectified and averaged over heads, are carried through the layers: image to
image (R_ss), text to text (R_tt) and text to image (R_ts). At a cross-attention, R_ts gains N(R_tt)^T A N(R_ss), where
N divides a map's rows less the identity by their sums and adds it again; the reference code is
https://github.com/hila-chefer/Transformer-MM-Explainability. Each word is explained by a pass of its own that ends at
its query: the transposed factor would mix later words into earlier ones, and their gradients are 0 there.

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
    """Row t: how the image's tokens spoke for the token at t + 1, given those before. At least 0, not normalised.

    image: [1, h, w, 3], normalised; tokens: [1, T], start and end included, all of them content. One backward pass
    for each word.
    """
    config, t = model.config, tokens.shape[1]
    s = jax.eval_shape(lambda m: m.encode(image, image_mask, padding=padding).tokens, model).shape[1]
    mask = jnp.ones((1, t), bool)
    heads = config.num_heads
    dtype = model.embedding.words[...].dtype
    none = (
        jnp.zeros((config.encoder_layers, 1, heads, s, s), dtype),
        jnp.zeros((config.decoder_layers, 1, heads, t, t), dtype),
        jnp.zeros((config.decoder_layers, 1, heads, t, s), dtype),
    )

    def run(perturbations: tuple[jax.Array, ...]) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        of_image, of_text, of_cross = perturbations
        memory, image_weights = encode_with_attention(model, image, image_mask, padding=padding, perturbations=of_image)
        decoded = decode_with_attention(model, memory, tokens, mask, perturbations=(of_text, of_cross))
        assert decoded.decoder_attention is not None
        assert decoded.cross_attention is not None
        following = jnp.take_along_axis(decoded.logits[0, :-1], tokens[0, 1:, None], axis=-1)[:, 0]
        return following, (image_weights, decoded.decoder_attention, decoded.cross_attention)

    _, pull, weights = jax.vjp(run, none, has_aux=True)

    def of_word(query: jax.Array) -> jax.Array:
        (gradients,) = pull((jnp.arange(t - 1) == query).astype(dtype))
        fused = [jax.nn.relu(w * g)[:, 0].mean(axis=1) for w, g in zip(weights, gradients, strict=True)]
        return propagate_relevance(*fused)[query]

    return jax.lax.map(of_word, jnp.arange(t - 1))


def propagate_relevance(
    image: Float[Array, "le s s"], text: Float[Array, "ld t t"], cross: Float[Array, "ld t s"]
) -> Float[Array, "t s"]:
    """R_ts, from each layer's attention times gradient."""
    of_image = jnp.eye(image.shape[1], dtype=cross.dtype)
    for layer in range(image.shape[0]):
        of_image = of_image + image[layer] @ of_image
    of_text, of_both = jnp.eye(text.shape[1], dtype=cross.dtype), jnp.zeros(cross.shape[1:], cross.dtype)
    for layer in range(text.shape[0]):
        of_text, of_both = of_text + text[layer] @ of_text, of_both + text[layer] @ of_both
        of_both = of_both + normalize_rows(of_text).T @ cross[layer] @ normalize_rows(of_image)
    return of_both


def normalize_rows(relevance: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """Rows less the identity divided by their sums, and the identity again; a row without relevance is the identity."""
    identity = jnp.eye(relevance.shape[0], dtype=relevance.dtype)
    rest = relevance - identity
    sums = rest.sum(axis=-1, keepdims=True)
    return rest / jnp.where(sums > 0, sums, 1) + identity
