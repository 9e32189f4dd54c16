"""The class of an image in a folder: its subfolder, else its name up to the last underscore."""

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from vit_jax.data.table_rows import is_table
from vit_jax.data.unicode_names import compose_name
from vit_jax.errors import InputError

# Names that cameras, phones and screenshots give: what stands before the number is no class.
CAMERA = re.compile(
    r"_?(?:IMG|DSC[A-Z]?|PXL|MVI|VID|PANO|DJI|GOPR|GP|SAM|WIN|PICT|CIMG|IMAG|BURST|img|dsc|pxl|[Ss]creenshot)(?:_[\d_]+)?"
    r"|(?:19|20)\d{6}"
)


def class_of(file: str, root: str | os.PathLike) -> str:
    """Return the class of a file, a path relative to `root`, with its Unicode characters composed (NFC).

    Raises InputError for a file that has neither a subfolder nor a class in its name.
    """
    folder, separator, _ = file.partition(os.sep)
    if separator:
        return compose_name(folder)
    name, underscore, _ = os.path.splitext(file)[0].rpartition("_")
    path = os.path.join(root, file)
    if not underscore or not name:
        raise InputError(f"{path}: no class; use a subfolder for each class or names like cat_12.jpg")
    if CAMERA.fullmatch(name):
        raise InputError(f"{path}: {name} is a camera's name, no class; use a subfolder for each class")
    return compose_name(name)


def merged_folders(folders: Iterable[str]) -> list[list[str]]:
    """Return the folders whose names are equal in NFC, and so print alike, in groups of two or more."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in sorted(folders):
        groups[compose_name(name)].append(name)
    return [group for group in groups.values() if len(group) > 1]


def hint_for_one_class(root: Path, files: Sequence[str]) -> str:
    """Return what to give in place of `root` if its files, all in one subfolder, show another choice, else "".

    files: relative to root. The hint is the end of a message.
    """
    name, separator, _ = files[0].partition(os.sep)
    if not separator:
        return ""
    folder, inner = root / name, [file.split(os.sep)[1:] for file in files]
    subfolders = sorted({parts[0] for parts in inner if len(parts) > 1})
    if subfolders:
        shown = ", ".join(subfolders[:3]) + (", ..." if len(subfolders) > 3 else "")
        return f"; if the folders in it ({shown}) are what you mean, give {folder}"
    table = next((path for path in sorted(root.iterdir()) if is_table(path)), None)
    if table is not None:
        return f"; if {table.name} has the classes, give {table}"
    if len({os.path.splitext(parts[0])[0].rpartition("_")[0] for parts in inner} - {""}) > 1:
        return f"; if the file names have the classes, give {folder}"
    return ""
