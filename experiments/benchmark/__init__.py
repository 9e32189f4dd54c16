"""python -m experiments.benchmark: speed and memory, next to other libraries where asked."""
