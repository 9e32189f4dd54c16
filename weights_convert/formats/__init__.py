"""Checkpoint file formats: files to {name: array}, and back."""
