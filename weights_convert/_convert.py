"""Conversion of a foreign checkpoint to a model of this library, and back."""

import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack, overload

import jax.numpy as jnp
import numpy as np
from flax import nnx

from caption import CaptionTransformer
from vit_jax import InputError, VisionTransformer
from vit_jax.checkpoint import fill_model, to_arrays
from weights_convert.class_names import choose_class_names
from weights_convert.formats import Contents, LazyArray, find_snapshot, open_contents
from weights_convert.layouts import LAYOUTS, ImageLayoutName, Layout
from weights_convert.model_types import Changes, ModelType, check_model_type
from weights_convert.peft import PREFIX as ADAPTED
from weights_convert.peft import find_adapter, merge_lora
from weights_convert.plan import (
    NO_SIDECAR,
    ConversionPlan,
    ImageSize,
    Request,
    find_layout,
    plan_conversion,
    select_requested,
)
from weights_convert.rules import apply_rules, invert_rules
from weights_convert.selection import find_arrays
from weights_convert.sidecar import read_sidecar

Checkpoint = str | os.PathLike | Mapping[str, Any]
Progress = Callable[[int, int], None]


class ConvertOptions(TypedDict, total=False):
    """The options of convert, apart from the layout, the image size and the number of classes.

    name:        an architecture of vit_jax.CONFIGS or caption.CONFIGS that the checkpoint must have.
    num_heads:   attention heads. Needed if neither a config next to the file nor a published shape states it.
    in_channels: if it differs from the checkpoint's 3, the patch embedding is adapted: see with_in_channels.
    settings:    fields of ViTConfig that arrays cannot hold: activation, norm_position, pooling, norm_eps, ...
    preprocess:  fields of Preprocess: mean, std, kernel, crop, ...
    weights_key: the prefix under which the model is in the file, if the file holds several.
    base:        a LoRA adapter's base model: a file, a folder or {name: array}.
    progress:    called with (parameters done, parameters in total).
    """

    name: str | None
    num_heads: int | None
    in_channels: int | None
    settings: Mapping[str, Any]
    preprocess: Mapping[str, Any]
    weights_key: str | None
    base: Checkpoint | None
    progress: Progress | None


@overload
def convert(
    path_or_arrays: Checkpoint,
    *,
    layout: ImageLayoutName,
    image_size: ImageSize | None = None,
    num_classes: int | None = None,
    **options: Unpack[ConvertOptions],
) -> VisionTransformer: ...


@overload
def convert(
    path_or_arrays: Checkpoint,
    *,
    layout: Literal["catr"],
    image_size: None = None,
    num_classes: None = None,
    **options: Unpack[ConvertOptions],
) -> CaptionTransformer: ...


@overload
def convert(
    path_or_arrays: Checkpoint,
    *,
    layout: str | Layout = "auto",
    image_size: ImageSize | None = None,
    num_classes: int,
    **options: Unpack[ConvertOptions],
) -> VisionTransformer: ...


@overload
def convert(
    path_or_arrays: Checkpoint,
    *,
    layout: str | Layout = "auto",
    image_size: ImageSize,
    num_classes: int | None = None,
    **options: Unpack[ConvertOptions],
) -> VisionTransformer: ...


@overload
def convert(
    path_or_arrays: Checkpoint,
    *,
    layout: str | Layout = "auto",
    image_size: ImageSize | None = None,
    num_classes: int | None = None,
    **options: Unpack[ConvertOptions],
) -> VisionTransformer | CaptionTransformer: ...


def convert(
    path_or_arrays: Checkpoint,
    *,
    layout: str | Layout = "auto",
    image_size: ImageSize | None = None,
    num_classes: int | None = None,
    **options: Unpack[ConvertOptions],
) -> VisionTransformer | CaptionTransformer:
    """Convert a foreign checkpoint (a file, a folder or {name: array}) to a model.

    A sidecar config next to the file (Hugging Face's, timm's or open_clip's) supplies what arrays cannot hold. What it
    says and this library cannot do is an error that names it.

    layout:      a name in LAYOUTS, "auto" to detect it, or a Layout (from rules_file.read_rules, for your own names).
    image_size:  int or (height, width); the position table is resized by the layout's own convention.
    num_classes: if it differs from the checkpoint's, a new head of zeros replaces the head.
    options:     see ConvertOptions.

    Values are read one parameter at a time, so memory stays near the size of the model. Half precision becomes
    float32. Raises InputError, naming the file, for anything that does not fit exactly, and for settings that arrays
    cannot hold and no source states.
    """
    model, _ = convert_with_plan(
        path_or_arrays, layout=layout, image_size=image_size, num_classes=num_classes, **options
    )
    return model


def convert_with_plan(
    path_or_arrays: Checkpoint,
    *,
    layout: str | Layout = "auto",
    image_size: ImageSize | None = None,
    num_classes: int | None = None,
    class_names: Sequence[str] = (),
    model_type: ModelType | None = None,
    **options: Unpack[ConvertOptions],
) -> tuple[Any, ConversionPlan]:
    """Convert a checkpoint as convert() does; return the model and the plan it followed, class names included.

    class_names: of the head, or of the new head, in the order of its outputs; they overrule those of the file.
    model_type:  that the model must have; InputError, before values are read, says if it is of another one.
    """
    num_heads = options.get("num_heads")
    request = Request(
        layout=layout,
        name=options.get("name"),
        image_size=image_size,
        in_channels=options.get("in_channels"),
        settings={**options.get("settings", {}), **({} if num_heads is None else {"num_heads": num_heads})},
        preprocess=options.get("preprocess", {}),
        weights_key=options.get("weights_key"),
    )
    with _name_in_errors(path_or_arrays):
        plan = open_plan(
            path_or_arrays, request, base=options.get("base"), num_classes=num_classes, class_names=class_names
        )
        actual_type, changes = plan.layout.model_type, Changes(image_size, num_classes, options.get("in_channels"))
        check_model_type(actual_type, model_type)
        actual_type.check_changes(plan.config, changes)  # before reading values
        _check_buffers(plan)
        parameters = _read_parameters(plan, options.get("progress"))
        model = fill_model(actual_type.abstract_model(plan.config), parameters)
        return actual_type.change(model, changes), plan


def open_plan(
    path_or_arrays: Checkpoint,
    request: Request,
    *,
    base: Checkpoint | None = None,
    num_classes: int | None = None,
    class_names: Sequence[str] = (),
) -> ConversionPlan:
    """Plan a conversion from a file, a folder or {name: array}. Raises InputError as convert() does."""
    source = path_or_arrays if base is None else base
    source = source if isinstance(source, Mapping) else find_snapshot(Path(source))
    contents = open_arrays(source)
    arrays = contents.arrays if base is None else _merge_adapter(path_or_arrays, contents.arrays, request)
    sidecar = NO_SIDECAR if isinstance(source, Mapping) else read_sidecar(source)
    plan = plan_conversion(arrays, request, sidecar=sidecar)
    return choose_class_names(plan, contents.values, class_names, num_classes)


def _merge_adapter(adapter: Checkpoint, base: Mapping[str, LazyArray], request: Request) -> dict[str, LazyArray]:
    """Return a base model's arrays, under its file's names, with a LoRA adapter merged; both are read."""
    if isinstance(adapter, Mapping):
        raise InputError("a LoRA adapter is a file or a folder, with its adapter_config.json")
    file, config = find_adapter(adapter)
    selection = select_requested(base, request)
    # A library may use other names in memory, which adapters have, than in files.
    deltas = {
        selection.layout.rename_key(name.removeprefix(ADAPTED)): array.read()
        for name, array in open_arrays(file).arrays.items()
    }
    arrays = {name: base[file_name].read() for name, file_name in selection.names.items()}
    merged = open_arrays(merge_lora(arrays, deltas, config)).arrays
    prefix = f"{selection.prefix}." if selection.prefix else ""
    return {**base, **{selection.names.get(name, prefix + name): array for name, array in merged.items()}}


def open_arrays(path_or_arrays: Checkpoint) -> Contents:
    """Return the contents of a file, a folder or {name: array}."""
    if not isinstance(path_or_arrays, Mapping):
        return open_contents(path_or_arrays)
    arrays = {
        name: LazyArray(tuple(np.shape(array)), np.asarray(array).dtype, functools.partial(np.asarray, array))
        for name, array in path_or_arrays.items()
    }
    return Contents(arrays, {})


def read_checkpoint(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Read a .pth/.pt/.bin (zip or legacy), .safetensors, .npz or .msgpack file as {name: array}, without torch.

    Of a file that holds a model of a known layout, these are the model's arrays, without a prefix. Of any other, those
    under the keys that training scripts nest a model in ({"model": {...}, "epoch": 3}). bfloat16 becomes
    ml_dtypes.bfloat16. Raises InputError, naming the file, if it is missing, damaged or of another format.
    """
    with _name_in_errors(path):
        arrays = find_arrays(open_contents(path), list(LAYOUTS.values()))
        return {name: array.read() for name, array in arrays.items()}


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


def _check_buffers(plan: ConversionPlan) -> None:
    """Raise InputError naming a buffer whose values are not those that the original computes."""
    for name, (array, expected) in plan.buffers.items():
        if array.shape != expected.shape or not np.array_equal(array.read(), expected):
            raise InputError(f"{name} does not hold what a model of this shape has there; the file is of another kind")


def _read_parameters(plan: ConversionPlan, progress: Progress | None) -> dict[str, Any]:
    def read(key: str) -> np.ndarray:
        return plan.arrays[key].read()

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
