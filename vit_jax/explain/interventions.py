"""The forward pass with an edit, and the ablation of every head.

Source: Michel, Levy and Neubig, NeurIPS 2019, arXiv 1905.10650 (a head's output set to zero).

Letters: L layers, B batch, H heads, C classes.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vit_jax.config import ViTConfig
from vit_jax.edits import NO_EDIT, Edit
from vit_jax.model import Images, VisionTransformer


def forward(model: VisionTransformer, images: Images, *, edit: Edit = NO_EDIT) -> Float[Array, "b classes"]:
    """Return the logits [B, C] of a model in which heads, branches or tokens are ablated or replaced; see Edit.

    A pure function of the edit too: jax.vmap over it evaluates many, jax.grad gives its gradient.
    Raises InputError for an edit of another shape, and as the model does.
    """
    return model.classify(model.apply_final_norm(model.run(images, edit=edit).tokens))


def single_head_edits(config: ViTConfig) -> Edit:
    """Return L * H edits along a first axis, layer by layer; each sets one head's output to zero."""
    layers, heads = config.depth, config.num_heads
    return Edit(head_scale=(1 - jnp.eye(layers * heads)).reshape(-1, layers, heads))


def ablate_each_head(model: VisionTransformer, images: Images) -> Float[Array, "layers heads b classes"]:
    """Return the logits with each head set to zero in turn, [L, H, B, C]: L * H forward passes, H of them at once."""
    config = model.config
    edits = single_head_edits(config)
    logits = jax.lax.map(lambda edit: forward(model, images, edit=edit), edits, batch_size=config.num_heads)
    return logits.reshape(config.depth, config.num_heads, *logits.shape[1:])
