"""Vision transformers in JAX that can be fine-tuned and looked inside."""

from vit_jax.checkpoint import ModelCard, load, load_card, save, with_image_size, with_num_classes
from vit_jax.config import CONFIGS, ViTConfig
from vit_jax.errors import InputError
from vit_jax.explain.rollout import attention_rollout, cls_attention, rollout_from_images
from vit_jax.model import VisionTransformer, ViTOutput, count_parameters, forward_with_attention
from vit_jax.posemb import resize_position_embedding
from vit_jax.preprocess import Preprocess

__all__ = [
    "CONFIGS",
    "InputError",
    "ModelCard",
    "Preprocess",
    "ViTConfig",
    "ViTOutput",
    "VisionTransformer",
    "attention_rollout",
    "cls_attention",
    "count_parameters",
    "forward_with_attention",
    "load",
    "load_card",
    "resize_position_embedding",
    "rollout_from_images",
    "save",
    "with_image_size",
    "with_num_classes",
]
