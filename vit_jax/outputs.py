"""Checks that a command makes before any work: its outputs replace nothing that it reads."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from vit_jax.errors import InputError

AnyPath = str | os.PathLike[str]


def check_out_folder(out: AnyPath) -> None:
    """Raise InputError unless `out` is a folder or can be created as one: it and its parents are not files."""
    path = Path(out)
    for part in (path, *path.parents):
        if os.path.lexists(part) and not part.is_dir():
            raise InputError(f"{part}: exists and is not a folder; choose another --out")


def check_apart(outputs: Iterable[AnyPath], inputs: Iterable[AnyPath]) -> None:
    """Raise InputError if an output would replace an input; see find_replaced."""
    replaced = find_replaced(outputs, inputs)
    if replaced is not None:
        raise InputError(f"{replaced}: this command reads it, and its output would replace it; choose another output")


def check_outside(out: AnyPath, folders: Iterable[AnyPath]) -> None:
    """Raise InputError if `out` is, or lies in, one of these folders of images, where results would become images."""
    target = Path(out).resolve()
    for folder in (Path(folder).resolve() for folder in folders):
        if target == folder or folder in target.parents:
            raise InputError(f"{out}: lies in {folder}, among the images; choose another --out")


def find_replaced(outputs: Iterable[AnyPath], inputs: Iterable[AnyPath]) -> Path | None:
    """Return the first existing output that is an input, or a folder that contains one; None if there is none.

    Symbolic links are followed: the file that a linked input points to counts as an input too.
    """
    existing = {Path(output): _real_place(Path(output)) for output in outputs if os.path.lexists(output)}
    if not existing:
        return None
    places = set(_list_places(Path(path) for path in inputs))
    parents = {parent for parent in {place.parent for place in places} for parent in (parent, *parent.parents)}
    return next((path for path, place in existing.items() if place in places or place in parents), None)


def _real_place(path: Path, parents: dict[Path, Path] | None = None) -> Path:
    """Return a path with its folder's links resolved, but not its own: what a rename to it would replace."""
    if path.name in ("", ".."):
        return path.resolve()
    parents = {} if parents is None else parents
    if path.parent not in parents:
        parents[path.parent] = path.parent.resolve()
    return parents[path.parent] / path.name


def _list_places(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield the place of each path and, for links, of the file that it points to. Each folder is resolved once."""
    parents: dict[Path, Path] = {}
    for path in paths:
        yield _real_place(path, parents)
        if path.is_symlink():
            yield path.resolve()
