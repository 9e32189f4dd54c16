"""Sidecar configs: the JSON files that Hugging Face, timm and open_clip store next to a checkpoint.

They hold what arrays cannot: number of heads, activation, eps, dropout, pooling, class names and preprocessing. Every
field that changes a model's output is applied, or named in an InputError. Only plain JSON is read; one file per
convention: huggingface.py and huggingface_processor.py, timm.py, open_clip.py.
"""

from weights_convert.sidecar.config import SidecarConfig
from weights_convert.sidecar.reading import read_sidecar

__all__ = ["SidecarConfig", "read_sidecar"]
