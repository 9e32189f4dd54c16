"""A foreign checkpoint to a model of this library, and back."""

import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from vit_jax import InputError
from vit_jax.checkpoint import check_names, fill_model, to_arrays
from vit_jax.config import as_pair
from weights_convert.formats.arrays import LazyArray
from weights_convert.formats.readers import open_checkpoint
from weights_convert.layouts import LAYOUTS, Layout
from weights_convert.rules import Rule, apply_rules, invert_rules, source_shapes
from weights_convert.sidecar import SidecarConfig, read_sidecar

NONE_BESIDE = SidecarConfig()
DATA_PARALLEL = "module."  # torch.nn.DataParallel puts this before every name


@dataclass(frozen=True)
class ConversionPlan:
    """How a checkpoint will be converted: found without reading a value.

    names: our spelling of a foreign name -> its name in the file; shapes: -> the shape that the rules take.
    unused: the file's names.
    told: which of the config's fields a file beside the checkpoint told, and which file; the rest is read off the
    arrays or the family's custom.
    """

    layout: Layout
    reason: str
    config: Any
    rules: tuple[Rule, ...]
    names: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]
    unused: tuple[str, ...]
    told: str = ""
    class_names: tuple[str, ...] = ()

    @property
    def architecture(self) -> str:
        """The named architecture that this is; "" when it is none."""
        return self.layout.kind.name_of(self.config)


def layout_of(name: str | Layout, *others: str) -> Layout:
    """A layout by name, or itself. Raises InputError for a name that there is not, listing those and `others`."""
    if isinstance(name, Layout):
        return name
    if name not in LAYOUTS:
        raise InputError(f"unknown layout {name!r}: one of {', '.join([*others, *LAYOUTS])}")
    return LAYOUTS[name]


def _chosen_layout(layout: str | Layout, names: Collection[str]) -> tuple[Layout, str]:
    """The layout asked for, or the one whose names the checkpoint has most of; and why."""
    if layout != "auto":
        return layout_of(layout, "auto"), "as asked"

    def share(candidate: Layout) -> float:
        return len({candidate.spelling(name) for name in names}.intersection(candidate.marks)) / len(candidate.marks)

    best = max(LAYOUTS.values(), key=lambda one: (share(one), share(one) == 1 and len(one.marks)))
    found = sorted({best.spelling(name) for name in names}.intersection(best.marks))
    return best, f"it has {', '.join(found) or 'none'}" + (f" of {', '.join(best.marks)}" if share(best) < 1 else "")


def plan_conversion(
    shapes: Mapping[str, tuple[int, ...]],
    *,
    layout: str | Layout = "auto",
    name: str | None = None,
    image_size: Any = None,
    num_heads: int | None = None,
    companion: SidecarConfig = NONE_BESIDE,
) -> ConversionPlan:
    """Decide the layout and the architecture from the arrays' names and shapes.

    Raises InputError for an unknown layout or name, another architecture than `name`'s, and arrays that are missing,
    left over or of another shape, all listed.
    """
    prefixed = all(key.startswith(DATA_PARALLEL) for key in shapes)
    plain = {key.removeprefix(DATA_PARALLEL) if prefixed else key: key for key in shapes}
    chosen, reason = _chosen_layout(layout, plain)
    names = {chosen.spelling(name): key for name, key in plain.items()}
    shapes = {key: tuple(shapes[original]) for key, original in names.items()}
    kind = chosen.kind
    known = kind.named(name)
    try:
        fits = companion.family == chosen.family
        beside = companion if fits else NONE_BESIDE
        size = beside.image_size if image_size is None else as_pair(image_size)
        found = chosen.architecture(shapes, size)
        if known and (differences := kind.differences(known, found)):
            raise InputError(f"a checkpoint of another architecture than {name}: {'; '.join(differences)}")
        config = kind.config_of(found, known, num_heads, beside)
    except (KeyError, ValueError, IndexError) as error:
        if isinstance(error, InputError):
            raise
        missing = sorted(set(chosen.marks) - set(shapes)) or [str(error).strip("'")]
        raise InputError(
            f"not a checkpoint that is understood; nearest is the layout {chosen.name} ({reason}), missing there: "
            f"{', '.join(missing[:10])}; the file has {', '.join(sorted(shapes)[:5])}, ..."
        ) from error
    rules = chosen.rules_for(config)
    targets = {key: leaf.shape for key, leaf in to_arrays(kind.abstract(config)).items()}
    used = {source for rule in rules for source in rule.sources}
    unused = [key for key in shapes if key not in used and any(re.fullmatch(p, key) for p in chosen.unused)]
    wanted = source_shapes(rules, targets)
    check_names(wanted, {k: _alike(v, wanted.get(k, v)) for k, v in shapes.items() if k not in unused})
    told = [*beside.settings, *(("preprocess",) if beside.preprocess else ())]
    return ConversionPlan(
        chosen,
        reason,
        config,
        tuple(rules),
        names,
        wanted,
        tuple(names[key] for key in unused),
        f"{', '.join(told)}, by {' and '.join(beside.source)}" if told else "",
        beside.class_names,
    )


def _alike(shape: tuple[int, ...], wanted: tuple[int, ...]) -> tuple[int, ...]:
    """The shape wanted where only leading axes of length 1 set it apart, in which versions of a library differ."""

    def bare(axes: tuple[int, ...]) -> tuple[int, ...]:
        return bare(axes[1:]) if axes[:1] == (1,) else axes

    return wanted if bare(shape) == bare(wanted) else shape


def convert(
    path_or_arrays: str | os.PathLike | Mapping[str, Any],
    *,
    layout: str | Layout = "auto",
    name: str | None = None,
    image_size: Any = None,
    num_classes: int | None = None,
    num_heads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Any:
    """A foreign checkpoint, a file, a folder or {name: array}, as a model: a VisionTransformer or a CaptionTransformer.

    Hugging Face's and timm's config.json (and preprocessor_config.json) beside a file tell what arrays can't.

    layout:      one of LAYOUTS, "auto", or a Layout (rules_file.read_rules makes one of one's own names).
    name:        an architecture of vit_jax.CONFIGS or caption.CONFIGS to hold the checkpoint against.
    image_size:  int or (height, width); the position table is resized in the layout's own convention.
    num_classes: another count than the checkpoint's starts a new head of zeros.
    num_heads:   arrays can't tell it: width // 64 unless given here, by `name` or in a config.json beside the file.
    progress:    called with (arrays done, arrays in all).

    Values are read one parameter at a time, so memory stays near the model's own size. Half precision becomes
    float32. Raises InputError, naming the file, for anything that does not fit exactly.
    """
    options = (layout, name, image_size, num_classes, num_heads, progress)
    if isinstance(path_or_arrays, Mapping):
        return _converted(path_or_arrays, NONE_BESIDE, *options)[0]
    return convert_with_plan(path_or_arrays, *options)[0]


def convert_with_plan(
    path: str | os.PathLike,
    layout: str | Layout = "auto",
    name: str | None = None,
    image_size: Any = None,
    num_classes: int | None = None,
    num_heads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Any, ConversionPlan]:
    """convert() of a file or folder, with the plan that it followed."""
    try:
        opened, beside = open_checkpoint(path), read_sidecar(path)
        return _converted(opened, beside, layout, name, image_size, num_classes, num_heads, progress)
    except InputError as error:
        prefix = f"{path}: "
        raise InputError(prefix + str(error).removeprefix(prefix)) from error


def _converted(
    arrays: Mapping[str, Any],
    beside: SidecarConfig,
    layout: str | Layout,
    name: str | None,
    image_size: Any,
    num_classes: int | None,
    num_heads: int | None,
    progress: Callable[[int, int], None] | None,
) -> tuple[Any, ConversionPlan]:
    shapes = {key: tuple(np.shape(a) if not isinstance(a, LazyArray) else a.shape) for key, a in arrays.items()}
    found = plan_conversion(
        shapes, layout=layout, name=name, image_size=image_size, num_heads=num_heads, companion=beside
    )
    found.layout.kind.check(found.config, image_size, num_classes)  # before anything is read

    def read(key: str) -> np.ndarray:
        array = arrays[found.names[key]]
        return array.read() if isinstance(array, LazyArray) else np.asarray(array)

    parameters: dict[str, Any] = {}
    for target, value in apply_rules(found.rules, read, found.shapes):
        parameters[target] = jnp.asarray(value)
        if progress is not None:
            progress(len(parameters), len(found.rules))
    kind = found.layout.kind
    model = kind.changed(fill_model(kind.abstract(found.config), parameters), image_size, num_classes)
    return model, found


def export(model: nnx.Module, *, layout: str | Layout) -> dict[str, np.ndarray]:
    """A model's parameters under the names and shapes of a foreign layout: `convert` the other way, bit-exact.

    Raises InputError for an unknown layout, and one that has no place for this model.
    """
    chosen, config = layout_of(layout), getattr(model, "config", None)
    arrays = {name: np.asarray(array) for name, array in to_arrays(model).items()}
    foreign = invert_rules(chosen.rules_for(config), arrays)
    named = {chosen.exported_as(name, config): array for name, array in foreign.items()}
    return named | dict(chosen.also_exported(config))
