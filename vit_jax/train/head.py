"""The head of a model that is trained on: kept, permuted or started anew, by comparing class names."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from vit_jax.checkpoint import HEAD_PREFIXES, from_arrays, to_arrays, with_new_head
from vit_jax.config import SINGLE_LABEL
from vit_jax.data.unicode_names import compose_name
from vit_jax.model import VisionTransformer


class FittedHead(NamedTuple):
    """A model with a head for the classes; note: one line on what was done, "" if there is nothing to say."""

    model: VisionTransformer
    note: str


def fit_head(
    model: VisionTransformer, old: Sequence[str], new: Sequence[str], *, task: str = SINGLE_LABEL
) -> FittedHead:
    """Return a model of this task with a head for the classes `new`, given the class names of its own, () if unknown.

    Equal names keep the head, names in another order permute its outputs, and other names start a new head of zeros, as
    does another task. Without names, only the number of classes tells.
    """
    before, after = ([compose_name(name) for name in names] for names in (old, new))
    started = start_head(model, len(after), task)
    if started.note:
        return started
    if not before:
        return FittedHead(model, "head: that of the weights, which have as many classes but do not name them")
    if before == after:
        return FittedHead(model, "")
    if sorted(before) == sorted(after):
        order = np.array([before.index(name) for name in after])
        return FittedHead(
            _permute_head(model, order), "head: that of the weights, its classes in the order of the data"
        )
    other = next(name for name in new if compose_name(name) not in before)
    note = f"head: new, because the classes of the weights have other names ({other} is not among them)"
    return FittedHead(with_new_head(model, len(after)), note)


def start_head(model: VisionTransformer, num_classes: int, task: str) -> FittedHead:
    """Return the model with a new head of zeros if its own is for another number of classes or another task."""
    count = model.config.num_classes
    if count == num_classes and model.config.task == task:
        return FittedHead(model, "")
    if count != num_classes:
        note = f"head: new, for {num_classes:,} classes (the model has {f'{count:,}' if count else 'none'})"
    else:
        kind = "one label" if model.config.task == SINGLE_LABEL else "a set of labels"
        note = f"head: new, because that of the model is for images with {kind}"
    return FittedHead(with_task(with_new_head(model, num_classes), task), note)


def with_task(model: VisionTransformer, task: str) -> VisionTransformer:
    """Return the model with a task, see vit_jax.ViTConfig; the same model if it has that one."""
    return model if task == model.config.task else from_arrays(replace(model.config, task=task), to_arrays(model))


def _permute_head(model: VisionTransformer, order: np.ndarray) -> VisionTransformer:
    """Return the model whose output i is the output order[i]. The last axis of a head's arrays is that of classes."""
    arrays = to_arrays(model)
    heads = {name: jnp.take(array, order, axis=-1) for name, array in arrays.items() if name.startswith(HEAD_PREFIXES)}
    return from_arrays(model.config, arrays | heads)
