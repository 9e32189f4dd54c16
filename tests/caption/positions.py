"""The reference's sine positions, to the bit."""

import numpy as np

from caption.positions import EPS, SCALE, TEMPERATURE
from tests.optional import torch


def torch_positions(mask, width):
    """Return the reference's own positions. torch's float32 sine is 1 unit in the last place off the nearest value at times,
    which no other library repeats, and 6e-8 here would hide everything below it."""
    content, waves = torch.from_numpy(np.asarray(mask)), []
    for axis in (1, 2):
        at = content.cumsum(axis, dtype=torch.float32)
        at = at / (at.narrow(axis, at.shape[axis] - 1, 1) + float(EPS)) * float(SCALE)
        i = torch.arange(width // 2, dtype=torch.float32)
        angle = at[..., None] / TEMPERATURE ** (2 * (i // 2) / (width // 2))
        waves.append(torch.stack((angle[..., 0::2].sin(), angle[..., 1::2].cos()), dim=4).flatten(3))
    return torch.cat(waves, dim=3).numpy()
