"""The programs that run a workload: this library's, and any program by its name in a worker process."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmark.flops import build_matrix_product
from experiments.benchmark.peer_programs import build_peer
from experiments.benchmark.workload import Workload, create_model
from experiments.common import runtime
from vit_jax import VisionTransformer, compiler_options
from vit_jax.execution import BlockExecution
from vit_jax.train.classify import ClassifierInputs, classification_loss
from vit_jax.train.optim import make_optimizer, make_schedule
from vit_jax.train.recipe import Recipe
from vit_jax.train.state import init_state
from vit_jax.train.step import StepSettings, make_train_step

OURS, MATRIX_PRODUCT = "here", "matrix product"


def build_ours(workload: Workload, model: VisionTransformer) -> Callable[[], Any]:
    """Build this library's program. A training step donates the model: pass one that nothing else uses."""
    return build_step(workload, model) if workload.train else build_forward(workload, model)


def build_forward(workload: Workload, model: VisionTransformer) -> Callable[[], jax.Array]:
    """Build a program that returns the logits [B, C]."""
    execution, dtype = BlockExecution(scan=workload.scan), jnp.dtype(workload.dtype)
    model, images = jax.tree.map(lambda leaf: leaf.astype(dtype), (model, jnp.asarray(workload.images())))
    forward = jax.jit(lambda m, x: m(x, execution=execution), compiler_options=compiler_options(forward_only=True))
    return lambda: forward(model, images)


def build_step(workload: Workload, model: VisionTransformer) -> Callable[[], jax.Array]:
    """Build a program that takes a training step on the batch and returns the sum of all images' losses so far."""
    execution = BlockExecution(scan=workload.scan)
    recipe = Recipe(model=None, epochs=1, **workload.adamw_settings)
    tx = make_optimizer(recipe, make_schedule(recipe, 1), model)
    step = make_train_step(
        lambda batch, key: batch,
        lambda params, inputs, key: classification_loss(params, inputs, None, execution=execution),
        tx,
        StepSettings(dtype=workload.dtype),
    )
    inputs = ClassifierInputs(
        jnp.asarray(workload.images()), jnp.asarray(workload.labels()), jnp.ones(workload.batch_size)
    )
    state = init_state(model, tx)

    def take_step() -> jax.Array:
        nonlocal state
        state, _ = step(state, inputs)
        return state.totals.loss

    return take_step


def build_program(workload: Workload, name: str) -> Callable[[], np.ndarray]:
    """In a worker process: build a program by its name; it returns its output on the host.

    Ours is configured as this project's programs are.
    """
    if name in (OURS, MATRIX_PRODUCT):
        runtime.configure()
    if name == MATRIX_PRODUCT:
        product = build_matrix_product(workload.dtype)
        return lambda: np.zeros(len(jax.block_until_ready(product())[:0]))  # the product stays on the device
    model = create_model(workload.config)
    program = build_ours(workload, model) if name == OURS else build_peer(workload, name, model)
    return lambda: np.asarray(jax.block_until_ready(program()), np.float32)
