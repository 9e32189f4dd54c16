"""Writing arrays as a checkpoint file of another library."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from vit_jax.errors import InputError
from vit_jax.files import atomic_write
from weights_convert.formats.torch_writer import write_torch

SAFETENSORS, TORCH = ".safetensors", (".pth", ".pt")


def check_suffix(path: Path) -> None:
    """Raise InputError if a file name's suffix is that of no format that is written."""
    if path.suffix not in (SAFETENSORS, *TORCH):
        raise InputError(f"{path}: cannot write this format; give a name that ends in .safetensors or .pth")


def write_checkpoint(path: Path, arrays: Mapping[str, np.ndarray], *, wrapper: str = "") -> None:
    """Write {name: array} in the format of the file name's suffix, completely or not at all.

    wrapper: the key under which a .pth file nests the arrays; "" for none.
    Raises InputError for another suffix.
    """
    check_suffix(path)
    with atomic_write(path) as partial:
        if path.suffix == SAFETENSORS:
            save_file(dict(arrays), partial, metadata={"format": "pt"})
        else:
            write_torch(partial, arrays, wrapper=wrapper)
