"""python -m experiments.caption: caption images, with a heat map for every word."""
