"""python -m experiments.sweep: train several models and settings."""
