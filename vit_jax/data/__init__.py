"""Labelled images: sources, decoding, loading and augmentation."""
