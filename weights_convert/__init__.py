"""Conversion of pretrained checkpoints from and to other libraries."""

from weights_convert._convert import convert, export, read_checkpoint
from weights_convert.hub.pretrained import load_pretrained

__all__ = ["convert", "export", "load_pretrained", "read_checkpoint"]
