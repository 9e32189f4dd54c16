"""The images that a command is given, as files or folders, and the names of their results."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from vit_jax import InputError
from vit_jax.data.folder import image_files


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
    images: list[ImagePath] = []
    for argument in arguments:
        path = Path(argument)
        if path.is_dir():
            images += [ImagePath(file, file.relative_to(path), False) for file in image_files(path)]
        elif path.is_file():
            images.append(ImagePath(path, Path(path.name), True))
        else:
            raise InputError(f"{argument}: no such file")
    stems = [image.result.with_suffix("") for image in images]
    counts = Counter(stems)
    images = [i._replace(result=s) if counts[s] == 1 else i for i, s in zip(images, stems, strict=True)]
    if len({image.result for image in images}) < len(images):
        raise InputError("two images have the same name; give them in separate calls")
    return images


def check_no_overwrite(arguments: Sequence[str], results: Iterable[tuple[Path, Path]], out: Path) -> None:
    """Raise InputError when `out` lies in an image folder, or a result would replace an image.

    results: (image, its result below `out`).
    """
    target = out.resolve()
    for folder in (Path(argument).resolve() for argument in arguments if Path(argument).is_dir()):
        if target == folder or folder in target.parents:
            raise InputError(f"{out}: lies in {folder}, among the images; choose another --out")
    results = list(results)
    images = {image.resolve() for image, _ in results}
    if any((out / result).resolve() in images for _, result in results):
        raise InputError(f"{out}: has an image of the same name as a result; choose another --out")
