"""One compiled training step and one compiled evaluation step of a captioner."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from caption import CaptionTransformer, caption_loss
from experiments.caption_recipe import CaptionRecipe
from experiments.data.caption_pipeline import CaptionBatch
from experiments.training.state import Totals, TrainState
from vit_jax.attention import Key


def measured(
    model: CaptionTransformer, batch: CaptionBatch, recipe: CaptionRecipe, key: Key | None
) -> tuple[jax.Array, Totals]:
    """The loss of a batch in nats; the sums over captions of it, of the share of tokens foreseen, and of captions."""
    pad = model.config.pad_token
    tokens = jnp.asarray(batch.tokens)
    given, wanted = tokens[:, :-1], tokens[:, 1:]
    logits = model(batch.images, batch.mask, given, given != pad, padding=recipe.padding, key=key)
    weights = jnp.asarray(batch.weights)
    ignored = pad if recipe.ignore_padding else None
    smoothing = recipe.label_smoothing if key is not None else 0.0
    loss = caption_loss(logits, wanted, ignore_token=ignored, label_smoothing=smoothing, weights=weights)
    content = wanted != pad
    hits = (logits.argmax(axis=-1) == wanted) & content
    share = hits.sum(axis=1) / jnp.maximum(content.sum(axis=1), 1)
    count = weights.sum()
    return loss, Totals(loss * count, (share * weights).sum(), count)


def make_train_step(
    tx: optax.GradientTransformation, recipe: CaptionRecipe
) -> Callable[[TrainState, CaptionBatch], tuple[TrainState, jax.Array]]:
    """(state, batch) -> (state, its step). Dropout is drawn by (seed, step), so a resumed run draws the same."""

    def train_step(state: TrainState, batch: CaptionBatch) -> tuple[TrainState, jax.Array]:
        key = jax.random.fold_in(jax.random.key(recipe.seed), state.step)

        def loss_of(model: Any) -> tuple[jax.Array, Totals]:
            return measured(model, batch, recipe, key)

        (_, sums), gradient = jax.value_and_grad(loss_of, has_aux=True)(state.model)
        updates, opt_state = tx.update(gradient, state.opt_state, state.model)
        totals = Totals(*(old + new for old, new in zip(state.totals, sums, strict=True)))
        state = TrainState(optax.apply_updates(state.model, updates), opt_state, state.step + 1, totals)
        return state, state.step

    return jax.jit(train_step, donate_argnums=0)


def make_eval_step(recipe: CaptionRecipe) -> Callable[[Any, CaptionBatch], Totals]:
    """(model, batch) -> the sums over its captions, without dropout and smoothing."""
    return jax.jit(lambda model, batch: measured(model, batch, recipe, None)[1])
