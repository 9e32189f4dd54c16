"""A foreign checkpoint to a model of vit_jax, and back."""

import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from vit_jax import CONFIGS, InputError, VisionTransformer, ViTConfig, with_image_size, with_num_classes
from vit_jax.checkpoint import abstract_model, check_names, from_arrays, to_arrays
from vit_jax.config import pair
from weights_convert.arrays import LazyArray
from weights_convert.companions import Companion, companion_of, preprocess_with
from weights_convert.layouts import LAYOUTS, Layout
from weights_convert.readers import open_checkpoint
from weights_convert.rules import Rule, converted, exported, source_shapes

NONE_BESIDE = Companion()
HEADS_OF_WIDTH = {1152: 16}  # SigLIP's so400m has heads of 72; elsewhere a head is 64 wide
DATA_PARALLEL = "module."  # torch.nn.DataParallel puts this before every name


@dataclass(frozen=True)
class Plan:
    """How a checkpoint will be converted: found without reading a value.

    names: our spelling of a foreign name -> its name in the file; shapes: -> the shape that the rules take.
    unused: the file's names.
    told: which of the config's fields a file beside the checkpoint told, and which file; the rest is read off the
    arrays or the family's custom.
    """

    layout: Layout
    reason: str
    config: ViTConfig
    rules: tuple[Rule, ...]
    names: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]
    unused: tuple[str, ...]
    told: str = ""
    class_names: tuple[str, ...] = ()

    @property
    def architecture(self) -> str:
        """The named architecture that this is, the one of its image size and classes first; "" when it is none."""
        alike = [
            name
            for name, known in CONFIGS.items()
            if known.num_heads == self.config.num_heads and not _differences(known, vars(self.config))
        ]
        exact = [name for name in alike if CONFIGS[name].resized(self.config.image_size) == self.config]
        return next(iter(exact + alike), "")


def _differences(known: ViTConfig, found: Mapping[str, Any]) -> list[str]:
    """What sets an architecture apart from a named one, class count and image size aside."""
    fields = ("patch_size", "width", "depth", "mlp_dim", "in_channels")
    return [f"{f} is {found[f]}, not {getattr(known, f)}" for f in fields if getattr(known, f) != found[f]]


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


def plan(
    shapes: Mapping[str, tuple[int, ...]],
    *,
    layout: str | Layout = "auto",
    name: str | None = None,
    image_size: Any = None,
    num_heads: int | None = None,
    companion: Companion = NONE_BESIDE,
) -> Plan:
    """Decide the layout and the architecture from the arrays' names and shapes.

    Raises InputError for an unknown layout or name, another architecture than `name`'s, and arrays that are missing,
    left over or of another shape, all listed.
    """
    prefixed = all(key.startswith(DATA_PARALLEL) for key in shapes)
    plain = {key.removeprefix(DATA_PARALLEL) if prefixed else key: key for key in shapes}
    chosen, reason = _chosen_layout(layout, plain)
    names = {chosen.spelling(name): key for name, key in plain.items()}
    shapes = {key: tuple(shapes[original]) for key, original in names.items()}
    known = _known(name)
    try:
        fits = companion.family == chosen.family
        beside = companion if fits else NONE_BESIDE
        size = beside.image_size if image_size is None else pair(image_size)
        found = chosen.architecture(shapes, size)
        if known and (differences := _differences(known, found)):
            raise InputError(f"a checkpoint of another architecture than {name}: {'; '.join(differences)}")
        heads = HEADS_OF_WIDTH.get(found["width"], max(1, found["width"] // 64))
        settings = {"num_heads": known.num_heads if known else heads} | found | dict(beside.settings)
        if found.get("activation") == "swiglu":
            settings["activation"] = "swiglu"  # the arrays know better than a config's hidden_act
        if num_heads is not None:
            settings["num_heads"] = num_heads
        config = ViTConfig(**settings, preprocess=preprocess_with(beside, found["image_size"]))
    except (KeyError, ValueError, IndexError) as error:
        if isinstance(error, InputError):
            raise
        missing = sorted(set(chosen.marks) - set(shapes)) or [str(error).strip("'")]
        raise InputError(
            f"not a checkpoint that is understood; nearest is the layout {chosen.name} ({reason}), missing there: "
            f"{', '.join(missing[:10])}; the file has {', '.join(sorted(shapes)[:5])}, ..."
        ) from error
    rules = chosen.rules_for(config)
    targets = {key: leaf.shape for key, leaf in to_arrays(abstract_model(config)).items()}
    used = {source for rule in rules for source in rule.sources}
    unused = [key for key in shapes if key not in used and any(re.fullmatch(p, key) for p in chosen.unused)]
    wanted = source_shapes(rules, targets)
    check_names(wanted, {k: _alike(v, wanted.get(k, v)) for k, v in shapes.items() if k not in unused})
    told = [*beside.settings, *(("preprocess",) if beside.preprocess else ())]
    return Plan(
        chosen,
        reason,
        config,
        tuple(rules),
        names,
        wanted,
        tuple(names[key] for key in unused),
        f"{', '.join(told)}, by {' and '.join(beside.source)}" if told else "",
        beside.class_names if len(beside.class_names) == config.num_classes else (),
    )


def _alike(shape: tuple[int, ...], wanted: tuple[int, ...]) -> tuple[int, ...]:
    """The shape wanted where only leading axes of length 1 set it apart, in which versions of a library differ."""

    def bare(axes: tuple[int, ...]) -> tuple[int, ...]:
        return bare(axes[1:]) if axes[:1] == (1,) else axes

    return wanted if bare(shape) == bare(wanted) else shape


def _known(name: str | None) -> ViTConfig | None:
    if name is not None and name not in CONFIGS:
        raise InputError(f"unknown architecture {name!r}: one of {', '.join(CONFIGS)}")
    return CONFIGS[name] if name else None


def convert(
    path_or_arrays: str | os.PathLike | Mapping[str, Any],
    *,
    layout: str | Layout = "auto",
    name: str | None = None,
    image_size: Any = None,
    num_classes: int | None = None,
    num_heads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> VisionTransformer:
    """A foreign checkpoint, a file, a folder or {name: array}, as a model of this library.

    Hugging Face's and timm's config.json (and preprocessor_config.json) beside a file tell what arrays can't.

    layout:      one of LAYOUTS, "auto", or a Layout (rules_file.read_rules makes one of one's own names).
    name:        an architecture of vit_jax.CONFIGS to hold the checkpoint against.
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
) -> tuple[VisionTransformer, Plan]:
    """convert() of a file or folder, with the plan that it followed."""
    try:
        opened, beside = open_checkpoint(path), companion_of(path)
        return _converted(opened, beside, layout, name, image_size, num_classes, num_heads, progress)
    except InputError as error:
        prefix = f"{path}: "
        raise InputError(prefix + str(error).removeprefix(prefix)) from error


def _converted(
    arrays: Mapping[str, Any],
    beside: Companion,
    layout: str | Layout,
    name: str | None,
    image_size: Any,
    num_classes: int | None,
    num_heads: int | None,
    progress: Callable[[int, int], None] | None,
) -> tuple[VisionTransformer, Plan]:
    shapes = {key: tuple(np.shape(a) if not isinstance(a, LazyArray) else a.shape) for key, a in arrays.items()}
    found = plan(shapes, layout=layout, name=name, image_size=image_size, num_heads=num_heads, companion=beside)
    if image_size is not None:
        found.config.grid_for(image_size)  # refuse a size that the patch does not divide before reading

    def read(key: str) -> np.ndarray:
        array = arrays[found.names[key]]
        return array.read() if isinstance(array, LazyArray) else np.asarray(array)

    parameters: dict[str, Any] = {}
    for target, value in converted(found.rules, read, found.shapes):
        parameters[target] = jnp.asarray(value)
        if progress is not None:
            progress(len(parameters), len(found.rules))
    model = from_arrays(found.config, parameters)
    if num_classes is not None:
        model = with_num_classes(model, num_classes)
    if image_size is not None and pair(image_size) != model.config.image_size:
        model = with_image_size(model, image_size)
    return model, found


def export(model: VisionTransformer, *, layout: str | Layout) -> dict[str, np.ndarray]:
    """A model's parameters under the names and shapes of a foreign layout: `convert` the other way, bit-exact.

    Raises InputError for an unknown layout.
    """
    chosen = layout_of(layout)
    arrays = {name: np.asarray(array) for name, array in to_arrays(model).items()}
    foreign = exported(chosen.rules_for(model.config), arrays)
    named = {chosen.exported_as(name, model.config): array for name, array in foreign.items()}
    return named | dict(chosen.also_exported(model.config))
