"""Pretrained checkpoints of other libraries, in and out."""

from weights_convert.convert import convert, export
from weights_convert.pretrained import load_pretrained
from weights_convert.readers import read_checkpoint

__all__ = ["convert", "export", "load_pretrained", "read_checkpoint"]
