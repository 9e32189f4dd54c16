"""The class names of a checkpoint: from the caller, a sidecar config, or the values that a training script saved."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vit_jax import InputError
from vit_jax.numerals import parse_int
from weights_convert.plan import ConversionPlan

# Keys under which training scripts save class names: lists of names, {name: index} and {index: name}.
LISTS = ("classes", "class_names", "label_names", "categories")
INDICES = ("class_to_idx", "label2id")
NAMES = ("idx_to_class", "id2label")
MAX_DEPTH = 4


def read_class_names(path: str) -> tuple[str, ...]:
    """Read a text file of class names, one in each line. Raises InputError for none, and for an empty or double one."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a text file of class names, one in each line ({error})") from error
    names = tuple(line.strip() for line in lines)
    while names and not names[-1]:
        names = names[:-1]
    if not names or "" in names or len(set(names)) < len(names):
        raise InputError(f"{path}: class names are one in each line, without empty lines and all different")
    return names


def choose_class_names(
    plan: ConversionPlan, values: Mapping[str, Any], requested: Sequence[str], num_classes: int | None = None
) -> ConversionPlan:
    """Return the plan with the class names that were requested, or else those of the sidecar config or the file.

    num_classes: of the head that replaces the checkpoint's, or None. Only requested names are those of a new head.

    Raises InputError if the requested names are not as many as the classes. Others are noted and left out then.
    """
    stored = getattr(plan.config, "num_classes", 0)
    classes = num_classes or stored
    if requested:
        if len(requested) != classes:
            raise InputError(f"{len(requested)} class names for {classes} classes")
        return replace(plan, class_names=tuple(requested))
    names = plan.class_names or next(_find_names(values, 0), ())
    if names and (len(names) != stored or classes != stored):
        note = f"class names left out: {len(names)} names ({names[0]}, ...) for {classes} classes"
        return replace(plan, class_names=(), notes=(*plan.notes, note))
    return replace(plan, class_names=names)


def _find_names(values: Any, depth: int) -> Iterator[tuple[str, ...]]:
    """Yield every list of class names in nested dicts, outermost first."""
    if not isinstance(values, Mapping) or depth > MAX_DEPTH:
        return
    for key, value in values.items():
        if names := _parse_names(key, value):
            yield names
    for value in values.values():
        yield from _find_names(value, depth + 1)


def _parse_names(key: Any, value: Any) -> tuple[str, ...]:
    """Return the class names that one entry lists in the order of the indices; () if it is no such list."""
    if key in LISTS and isinstance(value, list | tuple) and all(isinstance(name, str) for name in value):
        return tuple(value)
    if key in INDICES and isinstance(value, Mapping):
        value = {index: name for name, index in value.items()}
    elif key not in NAMES or not isinstance(value, Mapping):
        return ()
    by_index = {parse_int(str(index)): str(name) for index, name in value.items()}
    return tuple(by_index[i] for i in range(len(by_index))) if set(by_index) == set(range(len(by_index))) else ()
