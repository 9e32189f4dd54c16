"""One compiled training step for every task: forward, backward, update; in one piece or accumulated over several.

Every draw is a function of (seed, step), so a resumed run draws the same, on any number of devices.
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
from vit_jax.train.sharding import constrain_like, replicate
from vit_jax.train.state import Totals, TrainState

DTYPES = {"float32": None, "bfloat16": jnp.bfloat16}


class TaskLoss(NamedTuple):
    """What a task answers of some rows: their losses' sum, what it is divided by for the mean, and their totals."""

    total: Float[Array, ""]
    divisor: Float[Array, ""]
    totals: Totals


Prepare = Callable[[Any, Key], Any]
LossOf = Callable[[Any, Any, Key | None], TaskLoss]


class StepSettings(NamedTuple):
    """What a step does beside its loss.

    seed:        of every draw.
    accumulate:  the batch goes through in so many parts, which the memory for activations is divided by; the answer is
                 that of the whole batch, but for dropout, which is drawn for each part.
    dtype:       float32, or bfloat16 to compute in: parameters, gradients and optimiser stay as they are.
    ema:         the decay of the moving average, 0 for none; smaller in the first steps, (1 + t) / (10 + t), as
                 TensorFlow's ExponentialMovingAverage has it.
    """

    seed: int = 0
    accumulate: int = 1
    dtype: str = "float32"
    ema: float = 0.0


def cast(tree: Any, dtype: str) -> Any:
    """The floating-point arrays of a pytree in the type to compute in; as they are for float32."""
    wanted = DTYPES[dtype]
    if wanted is None:
        return tree
    return jax.tree.map(lambda x: x.astype(wanted) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)


def split_into_parts(tree: Any, count: int) -> Any:
    """[B, ...] to [count, B / count, ...]: every part has rows of every device."""
    return jax.tree.map(lambda x: x.reshape(x.shape[0] // count, count, *x.shape[1:]).swapaxes(0, 1), tree)


def compute_gradient(
    loss_of: LossOf, model: Any, inputs: Any, key: Key | None, settings: StepSettings
) -> tuple[Any, Totals, jax.Array]:
    """The gradient of the mean loss over all rows, their totals, and the mean loss."""

    def mean(model: Any) -> tuple[jax.Array, TaskLoss]:
        found = loss_of(cast(model, settings.dtype), inputs, key)
        return found.total / found.divisor, found

    if settings.accumulate == 1:
        (value, found), gradient = jax.value_and_grad(mean, has_aux=True)(model)
        return gradient, found.totals, value

    def part(carry: Any, rows_and_key: Any) -> tuple[Any, None]:
        rows, part_key = rows_and_key

        def total(model: Any) -> tuple[jax.Array, TaskLoss]:
            found = loss_of(cast(model, settings.dtype), rows, part_key if key is not None else None)
            return found.total, found

        (_, found), gradient = jax.value_and_grad(total, has_aux=True)(model)
        return jax.tree.map(jnp.add, carry, (gradient, found)), None

    keys = jax.random.split(jax.random.key(0) if key is None else key, settings.accumulate)
    parts = split_into_parts(inputs, settings.accumulate)
    shapes = jax.eval_shape(lambda: loss_of(cast(model, settings.dtype), jax.tree.map(lambda x: x[0], parts), None))
    nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (model, shapes))
    (gradient, found), _ = jax.lax.scan(part, nothing, (parts, keys))
    return (
        jax.tree.map(lambda g: g / found.divisor.astype(g.dtype), gradient),
        found.totals,
        found.total / found.divisor,
    )


def apply_step(
    state: TrainState, inputs: Any, key: Key | None, loss_of: LossOf, tx: optax.GradientTransformation,
    settings: StepSettings,
) -> TrainState:  # fmt: skip
    """The state after one optimiser step on prepared inputs. Pure: jit it."""
    gradient, sums, loss = compute_gradient(loss_of, state.model, inputs, key, settings)
    updates, opt_state = tx.update(gradient, state.opt_state, state.model)
    model = optax.apply_updates(state.model, updates)
    step = state.step + 1
    average = state.average
    if settings.ema:
        decay = jnp.minimum(settings.ema, (1.0 + state.step) / (10.0 + state.step))
        # In this form what does not learn stays to the bit.
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
    """(state, batch) -> (state, its step), compiled. The old state's memory is reused; the step is a buffer to wait on.

    prepare(batch, key): the model's inputs, rows first, drawn on. loss_of(model, inputs, key): see Loss.
    like: a state as it is placed on the mesh; the new one stays there, and parameters are gathered for use.
    """

    def train_step(state: TrainState, batch: Any) -> tuple[TrainState, jax.Array]:
        key = jax.random.fold_in(jax.random.key(settings.seed), state.step)
        prepare_key, loss_key = jax.random.split(key)
        inputs = prepare(batch, prepare_key)

        def whole_loss(model: Any, inputs: Any, key: Key | None) -> TaskLoss:
            return loss_of(model if mesh is None else replicate(mesh, model), inputs, key)

        state = apply_step(state, inputs, loss_key, whole_loss, tx, settings)
        if like is not None:
            state = constrain_like(state, like)
        return state, state.step

    # Measured in float32 alone.
    options = compiler_options() if settings.dtype == "float32" else {}
    return jax.jit(train_step, donate_argnums=0, compiler_options=options)
