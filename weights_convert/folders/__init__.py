"""Folders that another library loads: weights, config and preprocessing in its own files; one module per library."""

from weights_convert.folders.writing import TARGETS, write_folder

__all__ = ["TARGETS", "write_folder"]
