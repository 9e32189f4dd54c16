"""The handwritten digits that scikit-learn includes: 1,797 real images of 8x8 pixels, available offline."""

import numpy as np
from PIL import Image

from vit_jax.data.dataset import Dataset, Split, hold_out


def open_digits(*, val_fraction: float = 0.2, seed: int = 0) -> Dataset:
    """Open the digits as 8x8 grey images, with val_fraction of every class held out."""
    from sklearn.datasets import load_digits  # half a second to import, and only needed here

    digits = load_digits()
    pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)  # 17 grey levels
    names = [f"digit {i}" for i in range(len(pixels))]
    split = Split(names, digits.target.astype(np.int32), lambda i, max_value=None: Image.fromarray(pixels[i]))
    return Dataset("digits", tuple("0123456789"), *hold_out(split, val_fraction, seed))
