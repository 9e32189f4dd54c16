"""The differences between a stored split and the data as it is now, in one line."""

from collections import defaultdict
from typing import Any, NamedTuple

from vit_jax.data.stored_split import StoredSplit

Contents = tuple[tuple[str, int | None], ...]


class _Image(NamedTuple):
    """What identifies an image besides its name. classes: the names of its classes."""

    classes: tuple[str, ...]
    size: int | None


def describe_changes(old: StoredSplit, new: StoredSplit) -> str:
    """Return the differences of images and classes as one line, "" if there are none. Sides do not count."""
    before, after = _by_name(old), _by_name(new)
    renamed = _find_renamed(old, new)
    shared = [name for name in before if name in after]
    moved = [name for name in before if name not in after and not _is_renamed(before[name], renamed)]
    arrived = [name for name in after if name not in before and not _is_renamed(after[name], _inverse(renamed))]
    parts = [
        _count(arrived, "added"),
        _count(moved, "removed"),
        _count([name for name in shared if _is_replaced(before[name], after[name])], "replaced"),
        _count([n for n in shared if _rename(before[n], renamed) != after[n].classes], "labelled otherwise"),
        *_class_changes(old.class_names, new.class_names, renamed),
    ]
    if _is_multi_label(old) != _is_multi_label(new):
        parts.append(
            "images have sets of labels" if _is_multi_label(new) else "images have one label in place of a set"
        )
    return ", ".join(part for part in parts if part)


def _is_multi_label(split: StoredSplit) -> bool:
    return any(isinstance(label, list) for label in split.images.labels)


def _by_name(split: StoredSplit) -> dict[str, _Image]:
    names, labels, sizes = split.images
    classes = [_class_names(label, split.class_names) for label in labels]
    return dict(zip(names, map(_Image, classes, sizes), strict=True))


def _class_names(label: Any, class_names: tuple[str, ...]) -> tuple[str, ...]:
    indices = label if isinstance(label, list) else [label]
    return tuple(class_names[index] for index in indices)


def _count(names: list[str], what: str) -> str:
    return f"{len(names):,} {what} (first: {min(names)})" if names else ""


def _is_replaced(before: _Image, after: _Image) -> bool:
    return None not in (before.size, after.size) and before.size != after.size


def _rename(image: _Image, renamed: dict[str, str]) -> tuple[str, ...]:
    return tuple(renamed.get(name, name) for name in image.classes)


def _is_renamed(image: _Image, renamed: dict[str, str]) -> bool:
    return any(name in renamed for name in image.classes)


def _inverse(renamed: dict[str, str]) -> dict[str, str]:
    return {new: old for old, new in renamed.items()}


def _find_renamed(old: StoredSplit, new: StoredSplit) -> dict[str, str]:
    """Return old name -> new name of the classes that have the same files, by name and size, under another name."""
    candidates: dict[Contents, list[str]] = defaultdict(list)
    for name, contents in _contents(new, set(new.class_names) - set(old.class_names)).items():
        candidates[contents].append(name)
    renamed = {}
    for name, contents in _contents(old, set(old.class_names) - set(new.class_names)).items():
        if candidates[contents]:
            renamed[name] = candidates[contents].pop(0)
    return renamed


def _contents(split: StoredSplit, classes: set[str]) -> dict[str, Contents]:
    """Return the sorted (file name, size) of each of these classes, which has any."""
    files: dict[str, list[tuple[str, int | None]]] = defaultdict(list)
    if classes:
        for name, image in _by_name(split).items():
            for label in classes.intersection(image.classes):
                files[label].append((name.rpartition("/")[2], image.size))
    return {name: tuple(sorted(files[name], key=str)) for name in sorted(files)}


def _class_changes(old: tuple[str, ...], new: tuple[str, ...], renamed: dict[str, str]) -> list[str]:
    parts = [f"class {before} renamed to {after}" for before, after in renamed.items()]
    gone = [name for name in old if name not in new and name not in renamed]
    fresh = [name for name in new if name not in old and name not in renamed.values()]
    parts += [_list_classes(gone, "gone"), _list_classes(fresh, "new")]
    if not renamed and set(old) == set(new) and old != new:
        parts.append("classes in another order")
    return parts


def _list_classes(names: list[str], what: str) -> str:
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return f"{len(names)} {'class' if len(names) == 1 else 'classes'} {what} ({shown})" if names else ""
