"""python -m experiments.benchmark: speed and memory, next to PyTorch's on request."""
