"""The pictures that a command is given, files or folders: where their results go, and reading them ahead."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from vit_jax import InputError
from vit_jax.data.folder import image_files

Item = TypeVar("Item")
Made = TypeVar("Made")


def list_images(given: Sequence[str]) -> list[tuple[Path, Path, bool]]:
    """(file, where its results go below --out, whether it was named itself) for files and folders.

    Raises InputError for a file that is not there, a folder without pictures, and two results of one name.
    """
    found: list[tuple[Path, Path, bool]] = []
    for name in given:
        path = Path(name)
        if path.is_dir():
            found += [(file, file.relative_to(path), False) for file in image_files(path)]
        elif path.is_file():
            found.append((path, Path(path.name), True))
        else:
            raise InputError(f"{name}: no such file")
    counts: dict[Path, int] = {}
    for _, result, _ in found:
        counts[result.with_suffix("")] = counts.get(result.with_suffix(""), 0) + 1
    results = [(f, r if counts[r.with_suffix("")] > 1 else r.with_suffix(""), n) for f, r, n in found]
    if len({result for _, result, _ in results}) < len(results):
        raise InputError("two pictures have the same name; give them in separate calls")
    return results


def check_no_overwrite(given: Sequence[str], results: Iterable[tuple[Path, Path]], out: Path) -> None:
    """Raise InputError where results would lie among the pictures, or replace one; results: (picture, its result)."""
    place = out.resolve()
    for folder in (Path(name).resolve() for name in given if Path(name).is_dir()):
        if place == folder or folder in place.parents:
            raise InputError(f"{out}: lies in {folder}, among the pictures; choose another --out")
    results = list(results)
    pictures = {picture.resolve() for picture, _ in results}
    if any((out / result).resolve() in pictures for _, result in results):
        raise InputError(f"{out}: a picture of the same name lies there; choose another --out")
