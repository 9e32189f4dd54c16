"""Class-specific maps from attention weights and their gradients.

    relevance           R = I;  R <- R + Ā R                Chefer, Gur and Wolf, ICCV 2021, arXiv 2103.15679
    grad_rollout        R = I;  R <- norm(Ā + I) R          the same Ā, rolled out as Abnar and Zuidema do
    attention_gradcam   relu(mean_h w_h A_h[class, patches])     Grad-CAM on one layer's attention, as in 2012.09838

with Ā = mean over heads of relu(A * dy/dA). Only the row of R that the head reads is needed, so a row vector goes
from the last layer to the first, in O(L N^2) beside the gradient itself.

Letters: B batch, K target classes, L layers, H heads, N tokens.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vit_jax.explain.gradients import Targets, check_targets, class_cotangents, restore_target_axis, trace_attention
from vit_jax.explain.rollout import check_discard_ratio, readout, transition
from vit_jax.model import Images, VisionTransformer, resolve_layers

Step = Callable[[Float[Array, "b 1 n"], Float[Array, "b n n"]], Float[Array, "b 1 n"]]


def _row_through_layers(
    model: VisionTransformer, images: Images, targets: Targets, start_layer: int, step: Step
) -> Float[Array, "..."]:
    """The readout's row, taken by `step` through Ā of every layer from the last to start_layer."""
    classes = check_targets(targets, images.shape[0], model.config.num_outputs)
    first = resolve_layers([start_layer], len(model.blocks))[0]
    run = trace_attention(model, images, range(first, len(model.blocks)))
    b, _, n, _ = run.weights[0].shape
    start = jnp.broadcast_to(readout(model, n).astype(run.weights[0].dtype), (b, 1, n))

    def row(cotangent: Float[Array, "b c"]) -> Float[Array, "b n"]:
        result = start
        for weights, gradient in zip(reversed(run.weights), reversed(run.pull(cotangent)), strict=True):
            result = step(result, jax.nn.relu(weights * gradient).mean(axis=1))
        return result[:, 0, model.config.num_prefix :]

    rows = jax.vmap(row)(class_cotangents(classes, model.config.num_outputs, run.logits.dtype))
    return restore_target_axis(rows, targets)


def relevance(
    model: VisionTransformer, images: Images, targets: Targets, *, start_layer: int = 0
) -> Float[Array, "..."]:
    """How relevant each patch is to each target class's logit: [B, n] for targets [B], [B, K, n] for [B, K]; >= 0.

    images: normalised, [B, h, w, c]. start_layer: the first layer that counts.
    All K classes come from one forward pass. Source: Chefer et al., ICCV 2021, equations 5 and 6, self-attention only.
    Raises InputError for a class or layer that there is not, and as the model does.
    """
    return _row_through_layers(model, images, targets, start_layer, lambda row, mixed: row + row @ mixed)


def grad_rollout(
    model: VisionTransformer,
    images: Images,
    targets: Targets,
    *,
    discard_ratio: float = 0.0,
    start_layer: int = 0,
) -> Float[Array, "..."]:
    """attention_rollout of relu(A * dy/dA) in place of A: [B, n] or [B, K, n], at least 0, each at most 1 in sum.

    Arguments and errors as in relevance and attention_rollout.
    """
    check_discard_ratio(discard_ratio)
    has_class = model.config.class_token

    def step(row: Float[Array, "b 1 n"], mixed: Float[Array, "b n n"]) -> Float[Array, "b 1 n"]:
        return row @ transition(mixed, discard_ratio, has_class)

    return _row_through_layers(model, images, targets, start_layer, step)


def attention_gradcam(
    model: VisionTransformer, images: Images, targets: Targets, *, layer: int = -1
) -> Float[Array, "..."]:
    """Grad-CAM with one layer's attention maps as its channels: [B, n] or [B, K, n], at least 0.

    Each head's [class] row over the patches is weighted by the mean of its gradient there; then the mean over heads,
    then relu. Without a [class] token the row is the mean over the patches' queries.
    Source: Selvaraju et al., arXiv 1610.02391, applied to attention as in Chefer et al., arXiv 2012.09838.
    Raises InputError for a class or layer that there is not, and as the model does.
    """
    classes = check_targets(targets, images.shape[0], model.config.num_outputs)
    run = trace_attention(model, images, resolve_layers([layer], len(model.blocks)))
    (weights,) = run.weights
    read = readout(model, weights.shape[-1]).astype(weights.dtype)
    prefix = model.config.num_prefix

    def one_map(cotangent: Float[Array, "b c"]) -> Float[Array, "b n"]:
        (gradient,) = run.pull(cotangent)
        importance = jnp.einsum("q,bhqm->bhm", read, gradient)[..., prefix:].mean(axis=-1)
        rows = jnp.einsum("q,bhqm->bhm", read, weights)[..., prefix:]
        return jax.nn.relu((importance[..., None] * rows).mean(axis=1))

    maps = jax.vmap(one_map)(class_cotangents(classes, model.config.num_outputs, run.logits.dtype))
    return restore_target_axis(maps, targets)
