"""A new captioner over a vision transformer that was trained before."""

from dataclasses import replace

import jax
from flax import nnx

from caption.config import CaptionConfig
from caption.model import CaptionTransformer
from vit_jax import InputError, VisionTransformer
from vit_jax.checkpoint import abstract_model, to_arrays


def captioner_over_vit(vit: VisionTransformer, config: CaptionConfig, *, rngs: nnx.Rngs) -> CaptionTransformer:
    """A captioner whose encoder is this ViT less its head; the rest, as `config` has it, is new.

    The ViT's patches go to the decoder as they are (encoder_layers=0), and its own dropout is off: its last norm and
    blocks are what was trained. Raises InputError for a ViT that pools by attention or norms what it pooled.
    """
    if vit.config.pooling == "map" or vit.config.final_norm == "pooled":
        raise InputError("this ViT ends in a pooling of its own, not at its patches; give another as the encoder")
    headless = replace(vit.config, num_classes=0, representation=0, dropout=0.0, attention_dropout=0.0)
    settings = replace(config, encoder=headless, encoder_layers=0)
    made = CaptionTransformer(settings, rngs=rngs)
    arrays = to_arrays(vit)
    kept = [arrays[name] for name in to_arrays(abstract_model(headless))]
    made.encoder = jax.tree.unflatten(jax.tree.structure(made.encoder), kept)
    return made
