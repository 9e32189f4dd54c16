"""Data sets to batches, and their augmentation on the device."""
