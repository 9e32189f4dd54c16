"""The logit lens: what the classification head reads in every token after every layer.

Source: nostalgebraist, "interpreting GPT: the logit lens", 2020; for vision transformers Vilas et al., NeurIPS 2023,
arXiv 2310.18969.

Letters: L layers, B batch, N tokens, D width, C classes.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from vit_jax.errors import InputError
from vit_jax.model import Images, VisionTransformer


def read_tokens(model: VisionTransformer, tokens: Float[Array, "b n d"]) -> Float[Array, "b n classes"]:
    """Return the logits that the head gives if every token that it reads is this one: [B, N, C] of tokens [B, N, D].

    The final norm and the pooling are the model's own: equal tokens have that token as their mean.
    Raises InputError for a model without a head.
    """
    if not model.config.num_classes:
        raise InputError("the model has no classification head, so its tokens have no logits")
    b, n, d = tokens.shape
    copies = max(2, model.config.num_prefix + 1)  # [class], [distillation] and a patch
    sequences = jnp.broadcast_to(model.apply_final_norm(tokens).reshape(b * n, 1, d), (b * n, copies, d))
    return model.classify(sequences).reshape(b, n, -1)


def logit_lens(model: VisionTransformer, images: Images) -> Float[Array, "layers b n classes"]:
    """Return the logits of every token before the first block and after each block: [L + 1, B, N, C].

    Tokens are in the model's order, [class] first. Where the head reads [class] alone, the last layer's [class] entry
    is the model's own logits.
    Raises InputError for a model without a head, and as the model does.
    """
    return jnp.stack([read_tokens(model, tokens) for tokens in model.run(images, return_outputs=True).outputs])
