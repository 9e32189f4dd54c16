"""Checkpoint file formats.

    reading: .pth/.pt/.bin (torch_files, without torch), .safetensors, .npz (npz_files)
    writing: .pth/.pt (torch_writer, without torch), .safetensors

open_checkpoint returns {name: LazyArray}, whose values are read on demand; read_checkpoint reads them all.
"""

from weights_convert.formats.arrays import LazyArray
from weights_convert.formats.readers import open_checkpoint, read_checkpoint
from weights_convert.formats.writers import check_suffix, write_checkpoint

__all__ = ["LazyArray", "check_suffix", "open_checkpoint", "read_checkpoint", "write_checkpoint"]
