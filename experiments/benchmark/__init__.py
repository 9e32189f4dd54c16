"""What `python -m experiments.benchmark` measures, one module for each of its words."""
