"""python -m experiments.caption: caption pictures, with a heat map for every word."""
