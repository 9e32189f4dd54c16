"""What array shapes show about an architecture: layers, classes, the grid of positions, the patch."""

import math
import re
from collections.abc import Mapping

from vit_jax import InputError
from vit_jax.position import CLASS_ENTRIES, count_distances

Shapes = Mapping[str, tuple[int, ...]]
Size = tuple[int, int]

LAYER_NUMBER = re.compile("[0-9]{1,4}")

# Sides of published models' square grids. A table of that many positions has none for [class] (DeiT-III, timm's reg4).
PUBLISHED_SIDES = (14, 16, 24, 27, 28, 32, 37)
# Channels to try, in this order, when a patch is stored as one vector of pixels.
LIKELY_CHANNELS = (3, 1)


def count_layers(shapes: Shapes, prefix: str, *, separator: str = ".") -> int:
    """Return the number of layers under a prefix with {i}: one more than the highest layer number.

    separator: between a layer's number and the rest of an array's name.
    """
    head = prefix.partition("{i}")[0]
    numbers = {name.removeprefix(head).split(separator)[0] for name in shapes if name.startswith(head)}
    return 1 + max((int(number) for number in numbers if LAYER_NUMBER.fullmatch(number)), default=-1)


def count_rows(shapes: Shapes, name: str) -> int:
    """Return the length of an array's first axis: a head's classes, or the tokens of a vector table; 0 if absent."""
    return shapes[name][0] if name in shapes else 0


def infer_grid(num_positions: int, patch: Size, image_size: Size | None) -> Size:
    """Return the (rows, columns) of a position table: the grid of the image size if it fits, else a square.

    image_size: (height, width) that the caller or a sidecar config states, or None.

    Raises InputError if neither has that many positions.
    """
    if (grid := _match_image_size(num_positions, patch, image_size)) is not None:
        return grid
    if side := _square_side(num_positions):
        return side, side
    raise InputError(
        f"{num_positions} positions are no square grid; "
        "give the image size that the model was trained at (--image-size)"
    )


def infer_positions(
    num_positions: int, num_prefix: int, patch: Size, image_size: Size | None, *, has_registers: bool = False
) -> tuple[Size, bool]:
    """Return a position table's (rows, columns), and whether it has entries for the prefix tokens too.

    Models with registers and those with a published grid have no position for [class] where that gives a square.

    Raises InputError if neither reading fits the image size or a square, and if a square could be either.
    """
    num_patches = num_positions - num_prefix
    for count, with_prefix in ((num_patches, num_prefix > 0), (num_positions, False)):
        if (grid := _match_image_size(count, patch, image_size)) is not None:
            return grid, with_prefix
    if not _square_side(num_patches) and (side := _square_side(num_positions)):
        if has_registers or side in PUBLISHED_SIDES:
            return (side, side), False
        raise InputError(
            f"{num_positions} positions may be {side}x{side} patches, or {num_prefix} and {num_patches} patches in a "
            "grid that is no square; give the image size that the model was trained at (--image-size)"
        )
    return infer_grid(num_patches, patch, image_size), num_prefix > 0


def infer_distances(num_entries: int, patch: Size, image_size: Size | None) -> Size:
    """Return the (rows, columns) of a table of relative positions, [class] included; see vit_jax.position.

    Raises InputError if it fits neither the image size nor a square.
    """
    if image_size is not None:
        grid = image_size[0] // patch[0], image_size[1] // patch[1]
        if min(grid) and count_distances(grid) == num_entries:
            return grid
    side = _square_side(num_entries - CLASS_ENTRIES)
    if side % 2:
        return (side + 1) // 2, (side + 1) // 2
    raise InputError(
        f"{num_entries} relative positions are of no square grid; "
        "give the image size that the model was trained at (--image-size)"
    )


def infer_flat_patch(
    num_values: int, *, num_patches: int = 0, image_size: Size | None = None, in_channels: int | None = None
) -> tuple[int, int]:
    """Return the (side, channels) of a square patch stored as one vector of its pixels.

    The stated number of channels decides if it fits; then 3, then 1; then the image size, given the number of patches.

    Raises InputError if nothing fits.
    """
    for channels in (in_channels, *LIKELY_CHANNELS):
        if channels and num_values % channels == 0 and (side := _square_side(num_values // channels)):
            return side, channels
    if image_size is not None and num_patches:
        side = _square_side(image_size[0] * image_size[1] // num_patches)
        if side and (image_size[0] // side) * (image_size[1] // side) == num_patches and num_values % side**2 == 0:
            return side, num_values // side**2
    raise InputError(
        f"patches of {num_values} values are not squares of 3 channels or 1; "
        "give the number of channels (--in-channels)"
    )


def _match_image_size(num_positions: int, patch: Size, image_size: Size | None) -> Size | None:
    if image_size is None:
        return None
    rows, columns = image_size[0] // patch[0], image_size[1] // patch[1]
    return (rows, columns) if rows * columns == num_positions else None


def _square_side(count: int) -> int:
    """Return the square root of a positive square number, else 0."""
    side = math.isqrt(max(count, 0))
    return side if side * side == count else 0
