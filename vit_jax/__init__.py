"""Vision transformers in JAX/Flax: load pretrained weights, fine-tune them, and explain their predictions."""

from vit_jax._xla import compiler_options
from vit_jax.checkpoint import ModelCard, load, load_card, save, with_image_size, with_in_channels, with_num_classes
from vit_jax.config import CONFIGS, ViTConfig
from vit_jax.errors import InputError
from vit_jax.explain import (
    IntegratedGradients,
    attention_distance,
    attention_flow,
    attention_gradcam,
    attention_rollout,
    cls_attention,
    flow_from_attention,
    grad_rollout,
    insertion_deletion,
    integrated_gradients,
    logit_lens,
    overlay,
    patch_pca,
    patch_similarity,
    perturbation_auc,
    pointing_game,
    readout,
    relevance,
    rise,
    rollout_from_images,
    segmentation_scores,
    to_grid,
    token_norms,
    upsample,
)
from vit_jax.heat_map import HeatMap
from vit_jax.model import (
    VisionTransformer,
    ViTOutput,
    forward_with_attention,
    position_similarity,
)
from vit_jax.pipeline import Pipeline
from vit_jax.position import resize_position_embedding
from vit_jax.preprocess import ImagePreprocess, Preprocess
from vit_jax.summary import count_parameters
from vit_jax.version import VERSION as __version__

__all__ = [
    "CONFIGS",
    "HeatMap",
    "ImagePreprocess",
    "InputError",
    "IntegratedGradients",
    "ModelCard",
    "Pipeline",
    "Preprocess",
    "ViTConfig",
    "ViTOutput",
    "VisionTransformer",
    "__version__",
    "attention_distance",
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
    "logit_lens",
    "overlay",
    "patch_pca",
    "patch_similarity",
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
    "token_norms",
    "upsample",
    "with_image_size",
    "with_in_channels",
    "with_num_classes",
]
