"""How a checkpoint will be converted: its layout and architecture, decided from names and shapes alone."""

import itertools
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vit_jax import InputError
from vit_jax.checkpoint import check_names, to_arrays
from vit_jax.config import as_pair
from weights_convert.layouts import LAYOUTS, Layout
from weights_convert.rules import ResolvedRule, infer_source_shapes
from weights_convert.sidecar import SidecarConfig

NO_SIDECAR = SidecarConfig()
DATA_PARALLEL = "module."  # torch.nn.DataParallel prefixes every name with this

ImageSize = int | Sequence[int]


@dataclass(frozen=True)
class ConversionPlan:
    """How a checkpoint will be converted, decided from names and shapes without reading values.

    reason:         why this layout was chosen.
    names:          name in the rules -> name in the file.
    shapes:         name in the rules -> shape that the rules need.
    unused:         the file's arrays that the original model does not use either.
    sidecar_fields: the config fields read from sidecar files; the others come from the arrays or family defaults.
    sidecar_files:  the names of those files.
    """

    layout: Layout
    reason: str
    config: Any
    rules: tuple[ResolvedRule, ...]
    names: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]
    unused: tuple[str, ...]
    sidecar_fields: tuple[str, ...] = ()
    sidecar_files: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()

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
        raise InputError(f"unknown layout {layout!r}: one of {', '.join([*extra_names, *LAYOUTS])}")
    return LAYOUTS[layout]


def _select_layout(layout: str | Layout, names: Collection[str]) -> tuple[Layout, str]:
    """Return the requested layout, or for "auto" the one with the most signature keys; and the reason."""
    if layout != "auto":
        return find_layout(layout, "auto"), "as requested"

    def match(candidate: Layout) -> list[str]:
        return sorted({candidate.rename_key(name) for name in names}.intersection(candidate.signature_keys))

    def score(candidate: Layout) -> tuple[float, int]:
        fraction = len(match(candidate)) / len(candidate.signature_keys)
        return fraction, len(candidate.signature_keys) if fraction == 1 else 0

    best = max(LAYOUTS.values(), key=score)
    matched = match(best)
    partly = len(matched) < len(best.signature_keys)
    reason = f"it has {', '.join(matched) or 'none'}" + (f" of {', '.join(best.signature_keys)}" if partly else "")
    return best, reason


def plan_conversion(
    shapes: Mapping[str, tuple[int, ...]],
    *,
    layout: str | Layout = "auto",
    name: str | None = None,
    image_size: ImageSize | None = None,
    num_heads: int | None = None,
    sidecar: SidecarConfig = NO_SIDECAR,
) -> ConversionPlan:
    """Decide the layout and the architecture from the names and shapes of a checkpoint's arrays.

    Raises InputError for an unknown layout or name, for another architecture than `name`, and for arrays that are
    missing, left over or of another shape, all listed.
    """
    is_parallel = all(key.startswith(DATA_PARALLEL) for key in shapes)
    file_names = {key.removeprefix(DATA_PARALLEL) if is_parallel else key: key for key in shapes}
    selected, reason = _select_layout(layout, file_names)
    names = {selected.rename_key(key): file_name for key, file_name in file_names.items()}
    shapes = {key: tuple(shapes[file_name]) for key, file_name in names.items()}
    if sidecar.family != selected.sidecar_family:
        sidecar = NO_SIDECAR
    config = _infer_config(selected, reason, shapes, name, image_size, num_heads, sidecar)
    rules = selected.resolve_rules(config)
    targets = {key: leaf.shape for key, leaf in to_arrays(selected.model_type.abstract_model(config)).items()}
    expected = infer_source_shapes(rules, targets)
    unused = [key for key in shapes if key not in expected and any(re.fullmatch(p, key) for p in selected.unused)]
    actual = {key: shape for key, shape in shapes.items() if key not in unused}
    check_names(expected, {key: _align_shape(shape, expected.get(key, shape)) for key, shape in actual.items()})
    return ConversionPlan(
        layout=selected,
        reason=reason,
        config=config,
        rules=tuple(rules),
        names=names,
        shapes=expected,
        unused=tuple(names[key] for key in unused),
        sidecar_fields=(*sidecar.config_fields, *(("preprocess",) if sidecar.preprocess_fields else ())),
        sidecar_files=sidecar.files,
        class_names=sidecar.class_names,
    )


def _infer_config(
    layout: Layout,
    reason: str,
    shapes: Mapping[str, tuple[int, ...]],
    name: str | None,
    image_size: ImageSize | None,
    num_heads: int | None,
    sidecar: SidecarConfig,
) -> Any:
    """Return the config of the arrays. Raises InputError listing missing arrays or differences to the named one."""
    named_config = layout.model_type.named_config(name)
    try:
        size = sidecar.image_size if image_size is None else as_pair(image_size)
        array_fields = layout.infer_architecture(shapes, size)
        if named_config and (differences := layout.model_type.list_differences(named_config, array_fields)):
            raise InputError(f"a checkpoint of another architecture than {name}: {'; '.join(differences)}")
        return layout.model_type.build_config(array_fields, named_config, num_heads, sidecar)
    except InputError:
        raise
    except (KeyError, ValueError, IndexError) as error:
        missing = sorted(set(layout.signature_keys) - set(shapes)) or [str(error).strip("'")]
        raise InputError(
            f"not a known checkpoint layout; the closest is {layout.name} ({reason}), but "
            f"{', '.join(missing[:10])} is missing; the file has {', '.join(sorted(shapes)[:5])}, ..."
        ) from error


def _align_shape(shape: tuple[int, ...], expected: tuple[int, ...]) -> tuple[int, ...]:
    """Return `expected` if only leading axes of length 1 differ, as between versions of a library; else `shape`."""
    return expected if _strip_leading_ones(shape) == _strip_leading_ones(expected) else shape


def _strip_leading_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(itertools.dropwhile(lambda size: size == 1, shape))
