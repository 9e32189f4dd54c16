"""Captioned pictures: sources, augmentation, loading, and synthetic scenes."""
