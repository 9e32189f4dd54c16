"""How a checkpoint will be converted: its layout and architecture, decided from names and shapes alone."""

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from vit_jax import InputError
from vit_jax.checkpoint import check_names, to_arrays
from vit_jax.config import as_pair
from vit_jax.suggest import describe_unknown
from weights_convert.formats import LazyArray
from weights_convert.layouts import LAYOUTS, Layout, explain_unsupported
from weights_convert.rules import ResolvedRule, infer_source_shapes
from weights_convert.selection import Selection, select_model
from weights_convert.settings import NOTHING, ResolvedSettings, resolve_settings
from weights_convert.sidecar import SidecarConfig

NO_SIDECAR = SidecarConfig()

ImageSize = int | Sequence[int]


@dataclass(frozen=True)
class Request:
    """What the caller states about a checkpoint.

    layout:      a name in LAYOUTS, "auto", or a Layout.
    name:        an architecture that the checkpoint must have.
    image_size:  int or (height, width) in pixels.
    in_channels: of the pictures, which gives the shape of a patch that is stored as one vector.
    settings:    fields of ViTConfig that arrays cannot hold.
    preprocess:  fields of Preprocess.
    weights_key: the prefix under which the model is in the file.
    """

    layout: str | Layout = "auto"
    name: str | None = None
    image_size: ImageSize | None = None
    in_channels: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    preprocess: Mapping[str, Any] = field(default_factory=dict)
    weights_key: str | None = None


@dataclass(frozen=True)
class ConversionPlan:
    """How a checkpoint will be converted, decided from names and shapes without reading values.

    selection:   where in the file the model is, and in which layout.
    arrays:      name in the rules -> array in the file.
    shapes:      name in the rules -> shape that the rules need.
    unused:      the model's arrays in the file that the original model does not use either.
    settings:    those that arrays cannot hold, each with its source.
    class_names: as a sidecar config or a rules file lists them, or ().
    buffers:     arrays in the file with the values that the original recomputes, which theirs must equal.
    notes:       what else the user should know, as lines to print.
    """

    selection: Selection
    config: Any
    rules: tuple[ResolvedRule, ...]
    arrays: Mapping[str, LazyArray]
    shapes: Mapping[str, tuple[int, ...]]
    unused: tuple[str, ...]
    settings: ResolvedSettings
    buffers: Mapping[str, tuple[LazyArray, np.ndarray]] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def layout(self) -> Layout:
        """The layout of the model's names."""
        return self.selection.layout

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a quiet program prints too: the notes, and the settings that are assumed."""
        return (*self.notes, *self.settings.describe(only=NOTHING))

    @property
    def architecture(self) -> str:
        """The name of the config's architecture; "" if it has none."""
        return self.layout.model_type.find_name(self.config)


def find_layout(layout: str | Layout, *extra_names: str) -> Layout:
    """Return a layout by name, or the layout itself.

    Raises InputError for an unknown name; the message lists `extra_names` and the known names.
    """
    if isinstance(layout, Layout):
        return layout
    if layout not in LAYOUTS:
        raise InputError(describe_unknown("layout", layout, [*extra_names, *LAYOUTS]))
    return LAYOUTS[layout]


def plan_conversion(
    file_arrays: Mapping[str, LazyArray], request: Request, *, sidecar: SidecarConfig = NO_SIDECAR
) -> ConversionPlan:
    """Decide where the model is in a file, its layout and its architecture.

    Raises InputError for an unknown layout or name, for another architecture than the one requested, for settings
    that arrays cannot hold and no source states, and for arrays that are missing, left over or of another shape, all
    listed.
    """
    if request.layout != "auto":
        file_arrays = find_layout(request.layout, "auto").prepare(file_arrays)
    selection = select_requested(file_arrays, request)
    try:
        return _plan_selection(selection, file_arrays, request, sidecar)
    except InputError as error:
        reason = explain_unsupported([*selection.names, *file_arrays])
        if reason is None:
            raise
        raise InputError(reason) from error


def select_requested(file_names: Collection[str], request: Request) -> Selection:
    """Return the model in a file with these array names that the caller requests. Raises as select_model does."""
    is_requested = request.layout != "auto"
    layouts = [find_layout(request.layout, "auto")] if is_requested else list(LAYOUTS.values())
    return select_model(file_names, layouts, requested=is_requested, weights_key=request.weights_key)


def _plan_selection(
    selection: Selection, file_arrays: Mapping[str, LazyArray], request: Request, sidecar: SidecarConfig
) -> ConversionPlan:
    layout = selection.layout
    applied = sidecar.for_family(layout.sidecar_family)
    ignored = [f"{file}: of another family, not used" for file in sidecar.files if file not in applied.files]
    sidecar = applied
    arrays = {key: file_arrays[file_name] for key, file_name in selection.names.items()}
    unreadable = [array for key, array in arrays.items() if array.problem and not layout.is_ignored(key)]
    if unreadable:
        raise InputError(unreadable[0].problem)
    shapes = {key: array.shape for key, array in arrays.items()}
    array_fields = _infer_architecture(selection, shapes, request, sidecar)
    named_config = layout.model_type.named_config(request.name)
    if named_config and (differences := layout.model_type.list_differences(named_config, array_fields)):
        raise InputError(f"a checkpoint of another architecture than {request.name}: {'; '.join(differences)}")
    value_fields = layout.read_fields(arrays, array_fields)
    settings = resolve_settings(layout, shapes, array_fields, request, named_config, sidecar, value_fields)
    config = layout.model_type.build_config(array_fields, settings.config_fields, settings.preprocess_fields)
    rules = layout.resolve_rules(config)
    targets = {key: leaf.shape for key, leaf in to_arrays(layout.model_type.abstract_model(config)).items()}
    expected = infer_source_shapes(rules, targets)
    buffers = {key: compute(config) for key in shapes if (compute := layout.find_buffer(key)) is not None}
    left = [key for key in shapes if key not in expected and key not in buffers]
    unused = [key for key in left if layout.is_unused(key, shapes[key])]
    actual = {key: shape for key, shape in shapes.items() if key not in {*unused, *buffers}}
    check_names(expected, {key: _align_shape(shape, expected.get(key, shape)) for key, shape in actual.items()})
    return ConversionPlan(
        selection=selection,
        config=config,
        rules=tuple(rules),
        arrays={key: arrays[key] for key in expected},
        shapes=expected,
        unused=tuple(selection.names[key] for key in unused),
        buffers={key: (arrays[key], values) for key, values in buffers.items() if values is not None},
        settings=settings,
        class_names=layout.class_names or sidecar.class_names,
        notes=(*selection.describe(), *ignored, *sidecar.notes),
    )


def _infer_architecture(
    selection: Selection, shapes: Mapping[str, tuple[int, ...]], request: Request, sidecar: SidecarConfig
) -> dict[str, Any]:
    """Return the config fields that the arrays show. Raises InputError if arrays of the layout are missing.

    The size that the caller asks for gives the grid if it has as many positions; otherwise the sidecar config's does,
    and the table is resized later.
    """
    layout = selection.layout
    hint = {"in_channels": request.in_channels or layout.settings.get("in_channels")}
    infer = partial(layout.infer_architecture, **(hint if "in_channels" in layout.assumes else {}))
    sizes = [request.image_size, layout.settings.get("image_size"), sidecar.image_size]
    stated = [as_pair(size) for size in sizes if size is not None]
    try:
        fields = infer(shapes, stated[0] if stated else None)
        if stated[1:] and fields.get("image_size") != stated[0]:
            return infer(shapes, stated[-1])
        return fields
    except InputError:
        raise
    except (ValueError, IndexError) as error:
        raise InputError(f"not the layout {layout.name}: an array has another number of axes ({error})") from error
    except KeyError as error:
        missing = sorted(key for key in layout.signature_keys if "|" not in key and key not in shapes)
        missing = missing or [str(error).strip("'")]
        raise InputError(_explain_misfit(selection, missing)) from error


def _explain_misfit(selection: Selection, missing: Sequence[str]) -> str:
    """Return, in one line, why a file has no known layout, and what to do."""
    keys = selection.layout.signature_keys
    matched = selection.layout.match_signature(selection.names)
    files = ", ".join(sorted(selection.names.values())[:5])
    remedy = "for names of your own write a rules file (--rules): see docs/families.md"
    if len(matched) == len(keys):
        return f"a checkpoint in the layout {selection.layout.name} that lacks {', '.join(missing[:5])}"
    if not matched:
        return f"none of the known layouts; the file has {files}, ...; {remedy}"
    return (
        f"none of the known layouts; the closest, {selection.layout.name}, has {len(matched)} of {len(keys)} signature "
        f"keys: {', '.join(matched)}; missing: {', '.join(missing[:5])}; the file has {files}, ...; {remedy}"
    )


def _align_shape(shape: tuple[int, ...], expected: tuple[int, ...]) -> tuple[int, ...]:
    """Return `expected` if only leading axes of length 1 differ, as between versions of a library; else `shape`."""
    return expected if _strip_leading_ones(shape) == _strip_leading_ones(expected) else shape


def _strip_leading_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(itertools.dropwhile(lambda size: size == 1, shape))
