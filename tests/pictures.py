"""Pictures of awkward shapes, to compare resizing with the originals'."""

import numpy as np
from PIL import Image

# (width, height): the longer side or the margin of the crop is rounded differently by int(), floor() and round().
SIZES = ((500, 333), (333, 500), (224, 224), (225, 401), (401, 225), (640, 427), (97, 96), (300, 17), (31, 500), (3, 5))


def noise(size: tuple[int, int], seed: int = 0) -> Image.Image:
    """Return an RGB picture of random pixels: a shift by half a pixel changes nearly all of them."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)
