"""One compiled training step for every task: forward, backward and update, with optional gradient accumulation.

All random numbers are a function of (seed, step), so a resumed run repeats them on any number of devices.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float

from vit_jax._xla import compiler_options
from vit_jax.attention import Key
from vit_jax.precision import cast
from vit_jax.train.recipe import TrainRecipe
from vit_jax.train.sharding import constrain_like, replicate
from vit_jax.train.state import Totals, TrainState


class TaskLoss(NamedTuple):
    """The loss of some rows: the sum, the divisor that makes it a mean, and the totals to log."""

    total: Float[Array, ""]
    divisor: Float[Array, ""]
    totals: Totals


Prepare = Callable[[Any, Key], Any]
LossOf = Callable[[Any, Any, Key | None], TaskLoss]


class StepSettings(NamedTuple):
    """The settings of a step besides its loss.

    seed:        of all random numbers.
    accumulate:  number of parts of a batch; activation memory is divided by it. The gradient is that of the whole batch
                 to rounding, except for dropout, which is drawn per part.
    dtype:       float32 or bfloat16, of the computation; parameters, gradients and optimizer state are unchanged.
    ema:         decay of the moving average, 0 for none. At step t it is at most (1 + t) / (10 + t), as in
                 TensorFlow's ExponentialMovingAverage.
    """

    seed: int = 0
    accumulate: int = 1
    dtype: str = "float32"
    ema: float = 0.0

    @classmethod
    def from_recipe(cls, recipe: TrainRecipe) -> "StepSettings":
        """Return the settings of a recipe."""
        return cls(recipe.seed, recipe.accumulate, recipe.dtype, recipe.ema)


def split_into_parts(tree: Any, count: int) -> Any:
    """Reshape [B, ...] to [count, B / count, ...] such that every part has rows of every device."""
    return jax.tree.map(lambda x: x.reshape(x.shape[0] // count, count, *x.shape[1:]).swapaxes(0, 1), tree)


def compute_gradient(
    loss_of: LossOf, model: Any, inputs: Any, key: Key | None, settings: StepSettings
) -> tuple[Any, Totals, jax.Array]:
    """Return the gradient of the mean loss over all rows, their totals, and the mean loss."""
    if settings.accumulate > 1:
        return _accumulate_gradient(loss_of, model, inputs, key, settings)

    def mean(model: Any) -> tuple[jax.Array, TaskLoss]:
        loss = loss_of(cast(model, settings.dtype), inputs, key)
        return loss.total / loss.divisor, loss

    (value, loss), gradient = jax.value_and_grad(mean, has_aux=True)(model)
    return gradient, loss.totals, value


def _accumulate_gradient(
    loss_of: LossOf, model: Any, inputs: Any, key: Key | None, settings: StepSettings
) -> tuple[Any, Totals, jax.Array]:
    """Sum the gradients of the parts, then divide by the divisor of the whole batch."""

    def add_part(carry: Any, rows_and_key: Any) -> tuple[Any, None]:
        rows, part_key = rows_and_key

        def total(model: Any) -> tuple[jax.Array, TaskLoss]:
            loss = loss_of(cast(model, settings.dtype), rows, part_key if key is not None else None)
            return loss.total, loss

        (_, loss), gradient = jax.value_and_grad(total, has_aux=True)(model)
        return jax.tree.map(jnp.add, carry, (gradient, loss)), None

    keys = jax.random.split(jax.random.key(0) if key is None else key, settings.accumulate)
    parts = split_into_parts(inputs, settings.accumulate)
    shapes = jax.eval_shape(lambda: loss_of(cast(model, settings.dtype), jax.tree.map(lambda x: x[0], parts), None))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (model, shapes))
    (gradient, loss), _ = jax.lax.scan(add_part, zeros, (parts, keys))
    gradient = jax.tree.map(lambda g: g / loss.divisor.astype(g.dtype), gradient)
    return gradient, loss.totals, loss.total / loss.divisor


def apply_step(
    state: TrainState, inputs: Any, key: Key | None, loss_of: LossOf, tx: optax.GradientTransformation,
    settings: StepSettings,
) -> TrainState:  # fmt: skip
    """Return the state after one optimizer step on prepared inputs. Pure: to be jitted."""
    gradient, sums, loss = compute_gradient(loss_of, state.model, inputs, key, settings)
    updates, opt_state = tx.update(gradient, state.opt_state, state.model)
    model = optax.apply_updates(state.model, updates)
    step = state.step + 1
    average = state.average
    if settings.ema:
        decay = jnp.minimum(settings.ema, (1.0 + state.step) / (10.0 + state.step))
        # In this form the average of a frozen parameter is exactly the parameter.
        average = jax.tree.map(lambda a, m: a + (m - a) * (1 - decay).astype(a.dtype), average, model)
    totals = Totals(*(old + new for old, new in zip(state.totals, sums, strict=True)))
    failed = jnp.where((state.failed == 0) & ~jnp.isfinite(loss), step, state.failed)
    return TrainState(model, opt_state, step, totals, failed, average)


def make_train_step(
    prepare: Prepare,
    loss_of: LossOf,
    tx: optax.GradientTransformation,
    settings: StepSettings,
    *,
    mesh: Mesh | None = None,
    like: TrainState | None = None,
) -> Callable[[TrainState, Any], tuple[TrainState, jax.Array]]:
    """Return the compiled (state, batch) -> (state, its step). The old state is donated; wait on the step.

    prepare: (batch, key) -> the inputs of the model, augmented, rows first.
    loss_of: (model, inputs, key) -> TaskLoss.
    like:    a state placed on the mesh. The new state has its sharding, and parameters are gathered for use.
    """

    def train_step(state: TrainState, batch: Any) -> tuple[TrainState, jax.Array]:
        key = jax.random.fold_in(jax.random.key(settings.seed), state.step)
        prepare_key, loss_key = jax.random.split(key)
        inputs = prepare(batch, prepare_key)

        def replicated_loss(model: Any, inputs: Any, key: Key | None) -> TaskLoss:
            return loss_of(model if mesh is None else replicate(mesh, model), inputs, key)

        state = apply_step(state, inputs, loss_key, replicated_loss, tx, settings)
        if like is not None:
            state = constrain_like(state, like)
        return state, state.step

    # The options were measured in float32 only.
    options = compiler_options() if settings.dtype == "float32" else {}
    return jax.jit(train_step, donate_argnums=0, compiler_options=options)
