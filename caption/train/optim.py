"""What CATR trains by: its loss, and which of its parameters learn how fast. Pure functions, for use with optax.

Reference: main.py, engine.py and models/backbone.py of https://github.com/saahiluppal/catr.

Letters: B batch, T text tokens, V vocabulary.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from caption.config import ResNetConfig
from caption.model import CaptionTransformer
from vit_jax import InputError
from vit_jax.checkpoint import parameter_name
from vit_jax.train.optim import clip_by_norm

BACKBONE, REST, FROZEN = "backbone", "rest", "frozen"


def caption_loss(
    logits: Float[Array, "b t v"],
    targets: Int[Array | np.ndarray, "b t"],
    *,
    ignore_token: int | None = None,
    label_smoothing: float = 0.0,
    weights: Float[Array | np.ndarray, " b"] | None = None,
) -> Float[Array, ""]:
    """Mean cross-entropy of the next tokens, in nats.

    By default over every position, padding included, as the reference does: its positions after the end all ask for
    the padding token. ignore_token: positions that ask for this one do not count. label_smoothing: this share of the
    target is spread evenly over the vocabulary (torch's definition). weights: 0 for texts that only fill the batch.
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
    """caption_loss as the sum over positions that count, and their number."""
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
    """Each parameter's group by its dotted name (see vit_jax.checkpoint): "backbone", "rest" or "frozen".

    Frozen are the four vectors of every frozen batch norm, the ResNet's stem and its first `frozen_stages` stages, 1 in
    the reference; with 0 the stem learns too, as it must from scratch. Without frozen_norms the norms' scales and
    biases learn, and only their stored means and variances stay. A ViT encoder is "backbone" as a whole.
    Raises InputError for more stages than there are.
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

    return {name: group(name) for name in _names(model)}


def trainable(model: CaptionTransformer, *, frozen_stages: int = 1) -> dict[str, bool]:
    """Whether each parameter learns, by its dotted name: see parameter_groups."""
    return {name: group != FROZEN for name, group in parameter_groups(model, frozen_stages=frozen_stages).items()}


def _names(model: CaptionTransformer) -> list[str]:
    return [parameter_name(path) for path, _ in jax.tree_util.tree_flatten_with_path(model)[0]]


def _by_leaf(model: CaptionTransformer, of_name: dict[str, Any]) -> Any:
    """What is told by name, in the model's own tree."""
    return jax.tree.unflatten(jax.tree.structure(model), [of_name[name] for name in _names(model)])


def make_optimizer(
    model: CaptionTransformer,
    *,
    learning_rate: float | optax.Schedule = 1e-4,
    backbone_learning_rate: float | optax.Schedule = 1e-5,
    weight_decay: float = 1e-4,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    max_norm: float = 0.1,
    frozen_stages: int = 1,
    frozen_norms: bool = True,
) -> optax.GradientTransformation:
    """The reference's AdamW: what is frozen takes no part, the rest is clipped together, the backbone learns slower."""
    groups = _by_leaf(model, parameter_groups(model, frozen_stages=frozen_stages, frozen_norms=frozen_norms))
    frozen = jax.tree.map(lambda group: group == FROZEN, groups)
    rules = {
        group: optax.adamw(rate, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay)
        for group, rate in ((BACKBONE, backbone_learning_rate), (REST, learning_rate))
    }
    return optax.chain(  # the trees are models, which optax would take for functions and call
        optax.masked(optax.set_to_zero(), lambda params: frozen),
        clip_by_norm(max_norm),
        optax.multi_transform(rules | {FROZEN: optax.set_to_zero()}, lambda params: groups),
    )
