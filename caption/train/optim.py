"""The loss of CATR and the learning rates of its parameters: pure functions, for use with optax.

Reference: main.py, engine.py and models/backbone.py of https://github.com/saahiluppal/catr.

Letters: B batch, T text tokens, V vocabulary.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from caption.config import ResNetConfig
from caption.model import CaptionTransformer
from caption.train.recipe import CaptionRecipe
from vit_jax import InputError
from vit_jax.checkpoint import parameter_name
from vit_jax.train.optim import FROZEN, adamw_by_group, adamw_numbers, make_schedule

BACKBONE, REST = "backbone", "rest"


def caption_loss(
    logits: Float[Array, "b t v"],
    targets: Int[Array | np.ndarray, "b t"],
    *,
    ignore_token: int | None = None,
    label_smoothing: float = 0.0,
    weights: Float[Array | np.ndarray, " b"] | None = None,
) -> Float[Array, ""]:
    """Return the mean cross-entropy of the next tokens, in nats.

    By default over every position, padding included, as in the reference: the target of the positions after the end
    is the padding token.
    ignore_token: positions with this target do not count.
    label_smoothing: fraction of the target that is spread evenly over the vocabulary (torch's definition).
    weights: 0 for texts that only fill the batch.
    """
    total, count = caption_losses(
        logits, targets, ignore_token=ignore_token, label_smoothing=label_smoothing, weights=weights
    )
    return total / jnp.maximum(count, 1)


def caption_losses(
    logits: Float[Array, "b t v"],
    targets: Int[Array | np.ndarray, "b t"],
    *,
    ignore_token: int | None = None,
    label_smoothing: float = 0.0,
    weights: Float[Array | np.ndarray, " b"] | None = None,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Return caption_loss as the sum over the positions that count, and their number."""
    log_probs = jax.nn.log_softmax(logits, axis=-1)
    losses = -jnp.take_along_axis(log_probs, jnp.asarray(targets)[..., None], axis=-1)[..., 0]
    if label_smoothing:
        losses = (1 - label_smoothing) * losses - label_smoothing * log_probs.mean(axis=-1)
    counts = (
        jnp.ones(losses.shape, losses.dtype) if weights is None else jnp.broadcast_to(weights[:, None], losses.shape)
    )
    if ignore_token is not None:
        counts = counts * (jnp.asarray(targets) != ignore_token)
    return (losses * counts).sum(), counts.sum()


def parameter_groups(model: CaptionTransformer, *, frozen_stages: int = 1, frozen_norms: bool = True) -> dict[str, str]:
    """Return the group of each parameter by its dotted name: "backbone", "rest" or "frozen".

    Frozen are the four vectors of every frozen batch norm, the stem of the ResNet and its first `frozen_stages` stages
    (1 in the reference). With 0 the stem is trained too, as it must be from scratch. Without frozen_norms the scales
    and biases of the norms are trained, and only their stored means and variances are frozen. A ViT encoder is
    "backbone" as a whole. Raises InputError for more stages than the encoder has.
    """
    encoder = model.config.encoder
    stages = len(encoder.stage_depths) if isinstance(encoder, ResNetConfig) else 0
    if not 0 <= frozen_stages <= max(stages, 1):
        raise InputError(f"frozen_stages is between 0 and {stages}, not {frozen_stages}")
    frozen = ("encoder.stem.", *(f"encoder.stages.{i}." for i in range(frozen_stages))) if frozen_stages else ()

    def group(name: str) -> str:
        if not name.startswith("encoder."):
            return REST
        stored = (".norm.",) if frozen_norms else (".norm.mean", ".norm.var")
        if stages and (name.startswith(frozen) or any(part in name for part in stored)):
            return FROZEN
        return BACKBONE

    return {name: group(name) for name in _parameter_names(model)}


def trainable(model: CaptionTransformer, *, frozen_stages: int = 1) -> dict[str, bool]:
    """Return whether each parameter is trained, by its dotted name: see parameter_groups."""
    return {name: group != FROZEN for name, group in parameter_groups(model, frozen_stages=frozen_stages).items()}


def _parameter_names(model: CaptionTransformer) -> list[str]:
    return [parameter_name(path) for path, _ in jax.tree_util.tree_flatten_with_path(model)[0]]


def make_optimizer(
    model: CaptionTransformer,
    *,
    learning_rate: float | optax.Schedule = 1e-4,
    backbone_learning_rate: float | optax.Schedule = 1e-5,
    weight_decay: float = 1e-4,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    clip_norm: float = 0.1,
    frozen_stages: int = 1,
    frozen_norms: bool = True,
) -> optax.GradientTransformation:
    """Return the reference's AdamW: a lower learning rate for the backbone, and one norm for clipping (0 for none)."""
    by_name = parameter_groups(model, frozen_stages=frozen_stages, frozen_norms=frozen_norms)
    groups = jax.tree.unflatten(jax.tree.structure(model), list(by_name.values()))
    rates = {BACKBONE: _as_schedule(backbone_learning_rate), REST: _as_schedule(learning_rate)}
    return adamw_by_group(groups, rates, clip_norm=clip_norm, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay)


def _as_schedule(rate: float | optax.Schedule) -> optax.Schedule:
    return rate if callable(rate) else optax.constant_schedule(rate)


def make_recipe_optimizer(
    recipe: CaptionRecipe, model: CaptionTransformer, steps_per_epoch: int
) -> optax.GradientTransformation:
    """Return make_optimizer's with the numbers and schedules of a recipe."""
    return make_optimizer(
        model,
        learning_rate=make_schedule(recipe, steps_per_epoch),
        backbone_learning_rate=make_schedule(recipe, steps_per_epoch, peak=recipe.backbone_learning_rate),
        clip_norm=recipe.clip_norm,
        frozen_stages=recipe.frozen_stages,
        frozen_norms=not recipe.train_norms,
        **adamw_numbers(recipe),
    )
