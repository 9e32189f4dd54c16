"""The images that a command is given, as files or folders, and the names of their results."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from vit_jax import InputError
from vit_jax.data.folder import image_names
from vit_jax.outputs import check_out_folder, check_outside, find_replaced


class ImagePath(NamedTuple):
    """An image file. result: its name below --out; is_named: the command line names the file, not its folder."""

    file: Path
    result: Path
    is_named: bool


def list_images(arguments: Sequence[str]) -> list[ImagePath]:
    """List the images that command-line arguments, files and folders, refer to.

    Results have no suffix, except where two images differ in nothing else.
    Raises InputError for a missing file, a folder without images, and two results of the same name.
    """
    images: list[tuple[Path, str, bool]] = []  # names as texts: a Path for each is slow where a folder has many
    for argument in arguments:
        path = Path(argument)
        if path.is_dir():
            images += [(path / name, name, False) for name in image_names(path)]
        elif path.is_file():
            images.append((path, path.name, True))
        else:
            raise InputError(f"{argument}: no such file")
    stems = [os.path.splitext(name)[0] for _, name, _ in images]
    counts = Counter(stems)
    results = [stem if counts[stem] == 1 else name for stem, (_, name, _) in zip(stems, images, strict=True)]
    if len(set(results)) < len(results):
        raise InputError("two images have the same name; give them in separate calls")
    return [
        ImagePath(file, Path(result), is_named) for (file, _, is_named), result in zip(images, results, strict=True)
    ]


def check_results(out: Path, arguments: Sequence[str], images: Iterable[Path], results: Iterable[Path]) -> None:
    """Check, before any work, that results can be written into the folder `out` and replace no image.

    arguments: files and folders, as given; images: the files in them; results: paths below `out`.
    Raises InputError if `out` is a file or lies in a folder of images, for two results of one name, and for a result
    that would replace an image.
    """
    check_out_folder(out)
    check_outside(out, [argument for argument in arguments if Path(argument).is_dir()])
    counts = Counter(results)
    twice = next((result for result, count in counts.items() if count > 1), None)
    if twice is not None:
        raise InputError(f"{out / twice}: would be the result of two images; give them in separate calls")
    replaced = find_replaced((out / result for result in counts), images)
    if replaced is not None:
        raise InputError(f"{out}: has an image of the same name as a result ({replaced}); choose another --out")
