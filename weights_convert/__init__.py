"""Conversion of pretrained checkpoints from and to other libraries."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from weights_convert._convert import convert, export, read_checkpoint
    from weights_convert.hub.pretrained import load_pipeline, load_pretrained

__all__ = ["convert", "export", "load_pipeline", "load_pretrained", "read_checkpoint"]

# Imported at their first use, since `python -m weights_convert` has to set up signals before slow imports.
_MODULES = {
    "convert": "weights_convert._convert",
    "export": "weights_convert._convert",
    "load_pipeline": "weights_convert.hub.pretrained",
    "load_pretrained": "weights_convert.hub.pretrained",
    "read_checkpoint": "weights_convert._convert",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
