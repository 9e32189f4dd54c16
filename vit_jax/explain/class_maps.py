"""Class-specific maps from attention weights and their gradients.

    relevance           R = I;  R <- R + Ā R                Chefer, Gur and Wolf, ICCV 2021, arXiv 2103.15679
    grad_rollout        R = I;  R <- norm(Ā + I) R          the same Ā with the rollout of Abnar and Zuidema
    attention_gradcam   relu(mean_h w_h A_h[class, patches])     Grad-CAM on one layer's attention, as in 2012.09838

with Ā = mean over heads of relu(A * dy/dA). Only the rows of R that the classification head reads are needed, so a row
vector is propagated from the last layer to the first, in O(L N^2) plus the gradient.

Letters: B batch, K target classes, L layers, H heads, N tokens.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vit_jax.explain.gradients import Targets, check_targets, class_cotangents, restore_target_axis, trace_attention
from vit_jax.explain.rollout import check_discard_ratio, readout, transition_matrix
from vit_jax.model import Images, VisionTransformer, resolve_layers

Step = Callable[[Float[Array, "b 1 n"], Float[Array, "b n n"]], Float[Array, "b 1 n"]]


def _propagate_readout(
    model: VisionTransformer, images: Images, targets: Targets, start_layer: int, step: Step
) -> Float[Array, "..."]:
    """Propagate the readout row through Ā of every layer, from the last to start_layer, by step(row, Ā)."""
    classes = check_targets(targets, images.shape[0], model.config.num_outputs)
    first = resolve_layers([start_layer], len(model.blocks))[0]
    trace = trace_attention(model, images, range(first, len(model.blocks)))
    b, _, n, _ = trace.weights[0].shape
    start = jnp.broadcast_to(readout(model, n).astype(trace.weights[0].dtype), (b, 1, n))

    def propagate(cotangent: Float[Array, "b c"]) -> Float[Array, "b n"]:
        row = start
        for weights, gradient in zip(reversed(trace.weights), reversed(trace.pull(cotangent)), strict=True):
            row = step(row, jax.nn.relu(weights * gradient).mean(axis=1))
        return row[:, 0, model.config.num_prefix :]

    rows = jax.vmap(propagate)(class_cotangents(classes, model.config.num_outputs, trace.logits.dtype))
    return restore_target_axis(rows, targets)


def relevance(
    model: VisionTransformer, images: Images, targets: Targets, *, start_layer: int = 0
) -> Float[Array, "..."]:
    """Return the relevance of each patch to each target class's logit: [B, n] for targets [B], [B, K, n] for [B, K].

    Values are >= 0. All K classes share one forward pass.
    images: normalised, [B, h, w, c]. start_layer: the first layer that contributes.
    Source: Chefer et al., ICCV 2021, equations 5 and 6, self-attention only.
    Raises InputError for an unknown class or layer, and as the model does.
    """
    return _propagate_readout(model, images, targets, start_layer, lambda row, fused: row + row @ fused)


def grad_rollout(
    model: VisionTransformer,
    images: Images,
    targets: Targets,
    *,
    discard_ratio: float = 0.0,
    start_layer: int = 0,
) -> Float[Array, "..."]:
    """Return attention_rollout of relu(A * dy/dA) in place of A: [B, n] or [B, K, n], >= 0, each map sums to 1 at most.

    Arguments and errors as in relevance and attention_rollout.
    """
    check_discard_ratio(discard_ratio)
    has_class = model.config.class_token

    def step(row: Float[Array, "b 1 n"], fused: Float[Array, "b n n"]) -> Float[Array, "b 1 n"]:
        return row @ transition_matrix(fused, discard_ratio, has_class)

    return _propagate_readout(model, images, targets, start_layer, step)


def attention_gradcam(
    model: VisionTransformer, images: Images, targets: Targets, *, layer: int = -1
) -> Float[Array, "..."]:
    """Return Grad-CAM with the attention heads of one layer as its channels: [B, n] or [B, K, n], >= 0.

    The [class] row of each head is weighted by the mean of its gradient over the patches; then the mean over heads,
    then relu. Without a [class] token the row is the mean over the patches' rows.
    Source: Selvaraju et al., arXiv 1610.02391, applied to attention as in Chefer et al., arXiv 2012.09838.
    Raises InputError for an unknown class or layer, and as the model does.
    """
    classes = check_targets(targets, images.shape[0], model.config.num_outputs)
    trace = trace_attention(model, images, resolve_layers([layer], len(model.blocks)))
    (weights,) = trace.weights
    read = readout(model, weights.shape[-1]).astype(weights.dtype)
    prefix = model.config.num_prefix

    def gradcam(cotangent: Float[Array, "b c"]) -> Float[Array, "b n"]:
        (gradient,) = trace.pull(cotangent)
        importance = jnp.einsum("q,bhqm->bhm", read, gradient)[..., prefix:].mean(axis=-1)
        rows = jnp.einsum("q,bhqm->bhm", read, weights)[..., prefix:]
        return jax.nn.relu((importance[..., None] * rows).mean(axis=1))

    maps = jax.vmap(gradcam)(class_cotangents(classes, model.config.num_outputs, trace.logits.dtype))
    return restore_target_axis(maps, targets)
