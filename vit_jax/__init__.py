"""Vision transformers in JAX that can be fine-tuned and looked inside."""

from vit_jax._xla import compiler_options
from vit_jax.checkpoint import ModelCard, load, load_card, save, with_image_size, with_num_classes
from vit_jax.config import CONFIGS, ViTConfig
from vit_jax.errors import InputError
from vit_jax.explain.attribution import IntegratedGradients, integrated_gradients, rise
from vit_jax.explain.class_maps import attention_gradcam, grad_rollout, relevance
from vit_jax.explain.faithfulness import insertion_deletion, perturbation_auc, pointing_game, segmentation_scores
from vit_jax.explain.flow import attention_flow, flow_from_attention
from vit_jax.explain.heatmap import overlay, to_grid, upsample
from vit_jax.explain.rollout import attention_rollout, cls_attention, readout, rollout_from_images
from vit_jax.model import (
    VisionTransformer,
    ViTOutput,
    count_parameters,
    forward_with_attention,
    position_similarity,
)
from vit_jax.position import resize_position_embedding
from vit_jax.preprocess import Preprocess

__all__ = [
    "CONFIGS",
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
    "with_num_classes",
]
