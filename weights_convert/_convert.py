"""Conversion of a foreign checkpoint to a model of this library, and back."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, overload

import jax.numpy as jnp
import numpy as np
from flax import nnx

from caption import CaptionTransformer
from vit_jax import InputError, VisionTransformer
from vit_jax.checkpoint import fill_model, to_arrays
from weights_convert.formats import LazyArray, open_checkpoint
from weights_convert.layouts import ImageLayoutName, Layout
from weights_convert.plan import NO_SIDECAR, ConversionPlan, ImageSize, find_layout, plan_conversion
from weights_convert.rules import apply_rules, invert_rules
from weights_convert.sidecar import read_sidecar

Checkpoint = str | os.PathLike | Mapping[str, Any]
Progress = Callable[[int, int], None]


@overload
def convert(
    path_or_arrays: Checkpoint,
    *,
    layout: ImageLayoutName,
    name: str | None = None,
    image_size: ImageSize | None = None,
    num_classes: int | None = None,
    num_heads: int | None = None,
    progress: Progress | None = None,
) -> VisionTransformer: ...


@overload
def convert(
    path_or_arrays: Checkpoint,
    *,
    layout: Literal["catr"],
    name: str | None = None,
    image_size: None = None,
    num_classes: None = None,
    num_heads: int | None = None,
    progress: Progress | None = None,
) -> CaptionTransformer: ...


@overload
def convert(
    path_or_arrays: Checkpoint,
    *,
    layout: str | Layout = "auto",
    name: str | None = None,
    image_size: ImageSize | None = None,
    num_classes: int,
    num_heads: int | None = None,
    progress: Progress | None = None,
) -> VisionTransformer: ...


@overload
def convert(
    path_or_arrays: Checkpoint,
    *,
    layout: str | Layout = "auto",
    name: str | None = None,
    image_size: ImageSize,
    num_classes: int | None = None,
    num_heads: int | None = None,
    progress: Progress | None = None,
) -> VisionTransformer: ...


@overload
def convert(
    path_or_arrays: Checkpoint,
    *,
    layout: str | Layout = "auto",
    name: str | None = None,
    image_size: ImageSize | None = None,
    num_classes: int | None = None,
    num_heads: int | None = None,
    progress: Progress | None = None,
) -> VisionTransformer | CaptionTransformer: ...


def convert(
    path_or_arrays: Checkpoint,
    *,
    layout: str | Layout = "auto",
    name: str | None = None,
    image_size: ImageSize | None = None,
    num_classes: int | None = None,
    num_heads: int | None = None,
    progress: Progress | None = None,
) -> VisionTransformer | CaptionTransformer:
    """Convert a foreign checkpoint (a file, a folder or {name: array}) to a model.

    A sidecar config next to the file (Hugging Face's, timm's or open_clip's) supplies what arrays cannot hold.

    layout:      a name in LAYOUTS, "auto" to detect it, or a Layout (from rules_file.read_rules, for your own names).
    name:        an architecture of vit_jax.CONFIGS or caption.CONFIGS that the checkpoint must have.
    image_size:  int or (height, width); the position table is resized by the layout's own convention.
    num_classes: if it differs from the checkpoint's, a new head of zeros replaces the head.
    num_heads:   default: from `name` or the sidecar config, else width / 64.
    progress:    called with (parameters done, parameters in total).

    Values are read one parameter at a time, so memory stays near the size of the model. Half precision becomes
    float32. Raises InputError, naming the file, for anything that does not fit exactly.
    """
    model, _ = convert_with_plan(
        path_or_arrays,
        layout=layout,
        name=name,
        image_size=image_size,
        num_classes=num_classes,
        num_heads=num_heads,
        progress=progress,
    )
    return model


def convert_with_plan(
    path_or_arrays: Checkpoint,
    *,
    layout: str | Layout = "auto",
    name: str | None = None,
    image_size: ImageSize | None = None,
    num_classes: int | None = None,
    num_heads: int | None = None,
    progress: Progress | None = None,
) -> tuple[Any, ConversionPlan]:
    """Convert a checkpoint as convert() does; return the model and the plan it followed."""
    with _name_in_errors(path_or_arrays):
        if isinstance(path_or_arrays, Mapping):
            arrays, sidecar = path_or_arrays, NO_SIDECAR
        else:
            arrays, sidecar = open_checkpoint(path_or_arrays), read_sidecar(path_or_arrays)
        plan = plan_conversion(
            {key: tuple(np.shape(array)) for key, array in arrays.items()},
            layout=layout,
            name=name,
            image_size=image_size,
            num_heads=num_heads,
            sidecar=sidecar,
        )
        model_type = plan.layout.model_type
        model_type.check_options(plan.config, image_size, num_classes)  # before reading values
        parameters = _read_parameters(plan, arrays, progress)
        model = fill_model(model_type.abstract_model(plan.config), parameters)
        return model_type.apply_options(model, image_size, num_classes), plan


@contextmanager
def _name_in_errors(path_or_arrays: Checkpoint) -> Iterator[None]:
    """Prefix an InputError with the file's name, if there is a file."""
    try:
        yield
    except InputError as error:
        if isinstance(path_or_arrays, Mapping):
            raise
        prefix = f"{path_or_arrays}: "
        raise InputError(prefix + str(error).removeprefix(prefix)) from error


def _read_parameters(plan: ConversionPlan, arrays: Mapping[str, Any], progress: Progress | None) -> dict[str, Any]:
    def read(key: str) -> np.ndarray:
        array = arrays[plan.names[key]]
        return array.read() if isinstance(array, LazyArray) else np.asarray(array)

    parameters: dict[str, Any] = {}
    for target, value in apply_rules(plan.rules, read, plan.shapes):
        parameters[target] = jnp.asarray(value)
        if progress is not None:
            progress(len(parameters), len(plan.rules))
    return parameters


def export(model: nnx.Module, *, layout: str | Layout) -> dict[str, np.ndarray]:
    """Return a model's parameters under a foreign layout's names and shapes: the bit-exact inverse of `convert`.

    Raises InputError for an unknown layout, and for one that has no place for a parameter of this model.
    """
    selected, config = find_layout(layout), getattr(model, "config", None)
    parameters = {name: np.asarray(array) for name, array in to_arrays(model).items()}
    foreign = invert_rules(selected.resolve_rules(config), parameters)
    exported = {selected.export_key(name, config): array for name, array in foreign.items()}
    return exported | dict(selected.export_extra(config))
