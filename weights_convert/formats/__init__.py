"""Checkpoint file formats.

    reading: .pth/.pt/.bin (torch_files, without torch), .safetensors, .npz (npz_files), .msgpack (msgpack_files)
    writing: .pth/.pt (torch_writer, without torch), .safetensors

open_contents returns all that a file holds: every array as a LazyArray, whose values are read on demand, and the plain
values.

Pickles are interpreted without importing or calling anything: pickles (the opcodes), inert (what classes become),
torch_builders (tensors), numpy_pickles, modules (whole torch modules), contents (names), values (plain values).
kinds says what other files are, folders finds the weights in a folder.
"""

from weights_convert.formats.arrays import LazyArray
from weights_convert.formats.contents import Contents
from weights_convert.formats.folders import find_snapshot
from weights_convert.formats.readers import open_contents
from weights_convert.formats.writers import check_suffix, write_checkpoint

__all__ = [
    "Contents",
    "LazyArray",
    "check_suffix",
    "find_snapshot",
    "open_contents",
    "write_checkpoint",
]
