"""Vision transformers in JAX/Flax: load pretrained weights, fine-tune them, and explain their predictions."""

from vit_jax._xla import compiler_options
from vit_jax.checkpoint import ModelCard, load, load_card, save, with_image_size, with_in_channels, with_num_classes
from vit_jax.config import CONFIGS, ViTConfig
from vit_jax.errors import InputError
from vit_jax.explain import (
    IntegratedGradients,
    attention_flow,
    attention_gradcam,
    attention_rollout,
    cls_attention,
    flow_from_attention,
    grad_rollout,
    insertion_deletion,
    integrated_gradients,
    overlay,
    perturbation_auc,
    pointing_game,
    readout,
    relevance,
    rise,
    rollout_from_images,
    segmentation_scores,
    to_grid,
    upsample,
)
from vit_jax.model import (
    VisionTransformer,
    ViTOutput,
    count_parameters,
    forward_with_attention,
    position_similarity,
)
from vit_jax.position import resize_position_embedding
from vit_jax.preprocess import ImagePreprocess, Preprocess

__all__ = [
    "CONFIGS",
    "ImagePreprocess",
    "InputError",
    "IntegratedGradients",
    "ModelCard",
    "Preprocess",
    "ViTConfig",
    "ViTOutput",
    "VisionTransformer",
    "attention_flow",
    "attention_gradcam",
    "attention_rollout",
    "cls_attention",
    "compiler_options",
    "count_parameters",
    "flow_from_attention",
    "forward_with_attention",
    "grad_rollout",
    "insertion_deletion",
    "integrated_gradients",
    "load",
    "load_card",
    "overlay",
    "perturbation_auc",
    "pointing_game",
    "position_similarity",
    "readout",
    "relevance",
    "resize_position_embedding",
    "rise",
    "rollout_from_images",
    "save",
    "segmentation_scores",
    "to_grid",
    "upsample",
    "with_image_size",
    "with_in_channels",
    "with_num_classes",
]
