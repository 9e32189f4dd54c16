"""Explain a model's predictions: pure functions of a model, or of its attention weights.

METHODS lists the methods that share one signature; compile_method returns one as a compiled function.
"""

from vit_jax.explain.attribution import IntegratedGradients, integrated_gradients, rise
from vit_jax.explain.class_maps import attention_gradcam, grad_rollout, relevance
from vit_jax.explain.contributions import LogitContributions, decompose_logits, head_contributions
from vit_jax.explain.distances import (
    attention_distance,
    attention_distance_from_images,
    patch_distances,
)
from vit_jax.explain.faithfulness import (
    BASELINES,
    InsertionDeletion,
    PerturbationAUC,
    RemovalCurves,
    centred_map,
    insertion_deletion,
    perturbation_auc,
    random_map,
    removal_curves,
)
from vit_jax.explain.flow import attention_flow, flow_from_attention
from vit_jax.explain.head_methods import HEAD_METHODS, HeadMethod, compile_head_method, why_unavailable_per_head
from vit_jax.explain.heatmap import overlay, scale_to_unit_range, to_grid, uninformative_reason, upsample
from vit_jax.explain.interventions import ablate_each_head, forward, single_head_edits
from vit_jax.explain.lens import logit_lens, read_tokens
from vit_jax.explain.localization import SegmentationScores, pointing_game, segmentation_scores
from vit_jax.explain.methods import (
    DEFAULT_METHODS,
    METHODS,
    Method,
    MethodOptions,
    check_method_options,
    compile_method,
    head_attention,
    why_unavailable,
)
from vit_jax.explain.patch_features import patch_similarity, token_norms
from vit_jax.explain.pca import foreground_mask, patch_pca, scale_to_colours
from vit_jax.explain.rollout import attention_rollout, cls_attention, readout, rollout_from_images

__all__ = [
    "BASELINES",
    "DEFAULT_METHODS",
    "HEAD_METHODS",
    "METHODS",
    "HeadMethod",
    "InsertionDeletion",
    "IntegratedGradients",
    "LogitContributions",
    "Method",
    "MethodOptions",
    "PerturbationAUC",
    "RemovalCurves",
    "SegmentationScores",
    "ablate_each_head",
    "attention_distance",
    "attention_distance_from_images",
    "attention_flow",
    "attention_gradcam",
    "attention_rollout",
    "centred_map",
    "check_method_options",
    "cls_attention",
    "compile_head_method",
    "compile_method",
    "decompose_logits",
    "flow_from_attention",
    "foreground_mask",
    "forward",
    "grad_rollout",
    "head_attention",
    "head_contributions",
    "insertion_deletion",
    "integrated_gradients",
    "logit_lens",
    "overlay",
    "patch_distances",
    "patch_pca",
    "patch_similarity",
    "perturbation_auc",
    "pointing_game",
    "random_map",
    "read_tokens",
    "readout",
    "relevance",
    "removal_curves",
    "rise",
    "rollout_from_images",
    "scale_to_colours",
    "scale_to_unit_range",
    "segmentation_scores",
    "single_head_edits",
    "to_grid",
    "token_norms",
    "uninformative_reason",
    "upsample",
    "why_unavailable",
    "why_unavailable_per_head",
]
