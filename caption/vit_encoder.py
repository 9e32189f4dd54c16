"""A new captioner over a pretrained vision transformer."""

from dataclasses import replace

import jax
from flax import nnx

from caption.config import CaptionConfig
from caption.model import CaptionTransformer
from vit_jax import InputError, VisionTransformer
from vit_jax.checkpoint import abstract_model, to_arrays


def captioner_over_vit(vit: VisionTransformer, config: CaptionConfig, *, rngs: nnx.Rngs) -> CaptionTransformer:
    """Create a captioner with this ViT, without its head, as the encoder; the rest is new, by `config`.

    The ViT's patches go to the decoder directly (encoder_layers=0), and the ViT's dropout is off. Raises InputError
    for a ViT that pools by attention or norms the pooled token.
    """
    if vit.config.pools_by_attention or vit.config.final_norm == "pooled":
        raise InputError("this ViT pools by attention or norms the pooled token; give one that ends at its patches")
    headless = replace(vit.config, num_classes=0, representation=0, dropout=0.0, attention_dropout=0.0)
    model = CaptionTransformer(replace(config, encoder=headless, encoder_layers=0), rngs=rngs)
    arrays = to_arrays(vit)
    encoder_arrays = [arrays[name] for name in to_arrays(abstract_model(headless))]
    model.encoder = jax.tree.unflatten(jax.tree.structure(model.encoder), encoder_arrays)
    return model
